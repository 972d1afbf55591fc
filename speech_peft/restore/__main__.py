"""speech-peft restore IN... -o OUT --adapter FOLDER: recordings without noise, gaps and echoes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import ConfigError
from ..folders import options as cli
from ..shards import options as scale
from ..terminal.program import new_app, run

app = new_app()


@app.command(no_args_is_help=True)
def restore(
    inputs: cli.Inputs,
    adapter: Annotated[str | None, typer.Option(help="Adapter folder or hub id, with its decoder.")] = None,
    out: cli.Out = Path("."),
    weights: Annotated[
        str | None,
        typer.Option("--weights", "--model", help=f"The frozen model: {cli.ADDRESS}; the adapter's own."),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Another adapter folder of this encoder, whose decoder is used.")
    ] = None,
    sr: Annotated[
        Literal["keep", "16000", "24000", "48000"], typer.Option("--sr", help="Rate of the output.")
    ] = "keep",
    channels: Annotated[
        Literal["each", "mid", "mix"],
        typer.Option(help="each by itself; mid: their mean, sides kept; mix: one channel."),
    ] = "each",
    track: cli.Track = None,
    strength: Annotated[
        float, typer.Option("--strength", "--wet", min=0.0, max=1.0, help="1 all restored, 0 as it came.")
    ] = 1.0,
    atten_limit: Annotated[
        float | None, typer.Option("--atten-limit", min=0.0, help="Reduce nothing by more dB than this.")
    ] = None,
    guard: Annotated[
        Literal["full", "sound", "off"],
        typer.Option(help="full: voice, words, level, length; sound: without words; off."),
    ] = "full",
    guard_seconds: Annotated[
        float, typer.Option(min=1.0, help="Of each recording that voice and words are compared in.")
    ] = 60.0,
    guard_weights: Annotated[
        str | None,
        typer.Option(
            help="Whisper that hears the words; by default base where `judge` is installed, else tiny.en."
        ),
    ] = None,
    speaker_reference: cli.SpeakerReference = None,
    steps: Annotated[
        int | None, typer.Option("--steps", "-T", min=1, help="Rounds of a decoder that refines (WaveFit).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a decoder's noise.")] = 0,
    format: Annotated[
        Literal["wav", "flac"],
        typer.Option("-f", "--format", "--output-format", case_sensitive=False, help="What is written."),
    ] = "wav",
    subtype: Annotated[
        Literal["PCM_16", "PCM_24", "PCM_32", "FLOAT"],
        typer.Option(
            metavar="[PCM_16|PCM_24|PCM_32|FLOAT]", case_sensitive=False, help="The last two: wav only."
        ),
    ] = "PCM_16",
    window: Annotated[float, typer.Option(help="Seconds given to the model at once.")] = 12.0,
    window_context: Annotated[
        float, typer.Option(help="Seconds at both ends of a window that are thrown away afterwards.")
    ] = 1.0,
    context: cli.Context = None,
    device: cli.Device = "auto",
    threads: cli.Threads = None,
    batch_seconds: cli.BatchSeconds = 60.0,
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
    """Restore recordings, with a report beside each; what is complete is skipped when it is run again."""
    from .result import RestoreOptions

    if out == Path("-"):
        raise ConfigError("--out -: recordings are not printed; give a folder")
    if not adapter:
        raise ConfigError("--adapter: give the folder of a trained restorer: its adapter and its decoder")
    options = RestoreOptions(
        strength=strength,
        sample_rate=None if sr == "keep" else int(sr),
        attenuation_db=atten_limit,
        steps=steps,
        seed=seed,
        window_seconds=window,
        context_seconds=window_context,
        format=format,
        subtype=subtype,
        channels=channels,
        track=track,
    )
    from ..audio.io import AUDIO_SUFFIXES
    from ..folders import runner
    from ..opening import contents
    from ..shards.work import scratch

    divided = scale.Asked(shards, out_format, on, workers, gpus_per_worker, address, row_seconds)
    policy = runner.Policy(overwrite, retry_failed, fail_fast, name_template)
    judge = (guard, guard_seconds, guard_weights)

    def settings() -> dict[str, Any]:
        asked = _settings(weights, adapter, decoder, context, options, judge, offline)
        if speaker_reference is None:
            return asked
        return asked | {"speaker_reference": contents.of_file(speaker_reference)}

    def open_work() -> tuple[Any, Any]:
        from .guard import guard_of
        from .restorer import Restorer

        on = cli.found_device(device)
        restorer = Restorer(
            adapter,
            weights,
            decoder=decoder,
            guard=guard_of(guard, seconds=guard_seconds, weights=guard_weights, device=on, offline=offline),
            speaker_reference=speaker_reference,
            context=context,
            device=on,
            batch_seconds=batch_seconds,
            offline=offline,
            options=options,
        )
        return restorer, lambda jobs: restorer.work(jobs, scratch(out))

    shown: Any = {"threads": threads, "progress": progress, "quiet": quiet, "dry_run": dry_run}
    kinds = (options.format, "json")
    if divided:
        planned = (inputs, out, kinds, settings, AUDIO_SUFFIXES, policy, open_work)
        raise typer.Exit(scale.carry_out(divided, "restore", *planned, **shown))
    plan = runner.plan(inputs, out, kinds, settings, AUDIO_SUFFIXES, policy, "restore")
    raise typer.Exit(cli.carry_out(plan, policy, open_work, **shown))


def _settings(
    weights: str | None,
    adapter: str,
    decoder: str | None,
    context: str | None,
    options: Any,
    guard: tuple[str, float, str | None],
    offline: bool,
) -> dict[str, Any]:
    """All that decides the result. What is opened counts by its content: trained anew, it is made anew."""
    from dataclasses import asdict

    from ..opening import contents

    level, seconds, judge = guard
    if level == "full" and judge is None:
        from .witnesses import recogniser

        judge = recogniser()
    return {
        "weights": contents.of_weights(weights or contents.own_weights(adapter, offline), offline),
        "adapter": contents.of_adapter(adapter, offline),
        "decoder": None if decoder is None else contents.of_adapter(decoder, offline),
        "context": context,
        "options": asdict(options),
        "guard": [level, seconds, contents.of_weights(judge, offline) if level == "full" else {}],
    }


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 all failed, 2 wrong usage, 3 some failed, 130 interrupted."""
    return run(app, argv, "restore")


if __name__ == "__main__":
    raise SystemExit(main())
