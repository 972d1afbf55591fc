"""speech-peft classify IN... -o OUT --adapter FOLDER: which sounds are in recordings, and when."""

from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..folders import options as cli
from ..shards import options as scale
from ..terminal.program import new_app, run

app = new_app()


@app.command(no_args_is_help=True)
def classify(
    inputs: cli.Inputs,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="Adapter folder or hub id; may be repeated: all hear a recording in one pass."),
    ] = None,
    out: cli.OutOrScreen = None,
    printing: cli.Print = False,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "--model", help=f"The frozen model: {cli.ADDRESS}; the adapter's own."),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--format",
            "--output-format",
            metavar="[csv|json|jsonl|all]",
            help="What is written; repeat, or commas; csv if not given.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels to write, the likeliest first.")] = 5,
    window: Annotated[
        float, typer.Option(help="Seconds heard at once; what is shorter is heard at its own length.")
    ] = 10.0,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next; half a window if not given.")
    ] = None,
    adapter_task: cli.AdapterTask = None,
    context: cli.Context = None,
    channels: cli.Channels = "mix",
    track: cli.Track = None,
    device: cli.Device = "auto",
    threads: cli.Threads = None,
    batch_seconds: cli.BatchSeconds = 300.0,
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
    """Classify recordings; what is complete is skipped, so run it again after any interruption."""
    from ..audio.io import AUDIO_SUFFIXES
    from ..folders import formats, printed, runner
    from . import writers as label_writers
    from .result import ClassifyOptions

    if not adapter:
        raise ConfigError("--adapter: give the folder of a trained adapter; it names the classes")
    kinds = formats.formats(format or ["csv"], tuple(label_writers.WRITERS))
    options = ClassifyOptions(
        window_seconds=window,
        hop_seconds=hop,
        top_k=top_k,
        channels=channels,
        track=track,
        adapter_task=adapter_task,
    )
    policy = runner.Policy(overwrite, retry_failed, fail_fast, name_template)

    def settings() -> dict[str, Any]:
        return _settings(weights, adapter, context, options, offline)

    def open_work() -> tuple[Any, Any]:
        from .classifier import Classifier

        classifier = Classifier(
            adapter,
            weights,
            context=context,
            device=cli.found_device(device),
            batch_seconds=batch_seconds,
            offline=offline,
            options=options,
        )
        return classifier, lambda jobs: classifier.work(jobs, kinds)

    shown: Any = {"threads": threads, "progress": progress, "quiet": quiet, "dry_run": dry_run}
    divided = scale.Asked(shards, out_format, on, workers, gpus_per_worker, address, row_seconds)
    if (folder := printed.where(out, printing)) is None:
        scale.not_printed(divided)
        raise typer.Exit(printed.carry_out(inputs, AUDIO_SUFFIXES, kinds, open_work, **shown))
    if divided:
        planned = (inputs, folder, kinds, settings, AUDIO_SUFFIXES, policy, open_work)
        raise typer.Exit(scale.carry_out(divided, "classify", *planned, **shown))
    plan = runner.plan(inputs, folder, kinds, settings, AUDIO_SUFFIXES, policy, "classify")
    raise typer.Exit(cli.carry_out(plan, policy, open_work, **shown))


def _settings(
    weights: str | None, adapters: list[str], context: str | None, options: Any, offline: bool
) -> dict[str, Any]:
    """All that decides the result. What is opened counts by its content: trained anew, it is made anew."""
    from ..opening import contents

    return {
        "weights": contents.of_weights(weights or contents.own_weights(adapters[0], offline), offline),
        # Outputs name them.
        "adapters": [[adapter, contents.of_adapter(adapter, offline)] for adapter in adapters],
        "context": context,
        "options": options.asked(),
    }


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 all failed, 2 wrong usage, 3 some failed, 130 interrupted."""
    return run(app, argv, "classify")


if __name__ == "__main__":
    raise SystemExit(main())
