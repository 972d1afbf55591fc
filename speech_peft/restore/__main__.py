"""python -m speech_peft.restore IN... -o OUT --adapter FOLDER: recordings without noise, gaps and echoes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..folders import options as cli
from ..folders.options import one_of

app = cli.new_app()

RATES = ("keep", "16000", "24000", "48000")


@app.command(no_args_is_help=True)
def restore(
    inputs: cli.Inputs,
    adapter: Annotated[str | None, typer.Option(help="Adapter folder or hub id, with its decoder.")] = None,
    out: cli.Out = Path("."),
    weights: Annotated[
        str | None,
        typer.Option("--weights", "--model", help="Folder, hub id or pkg:PACKAGE/path; the adapter's own."),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Another adapter folder of this encoder, whose decoder is used.")
    ] = None,
    sr: Annotated[
        str, typer.Option("--sr", help="Rate of the output: keep, 16000, 24000 or 48000.")
    ] = "keep",
    channels: Annotated[
        str, typer.Option(help="each by itself; mid: their mean, sides kept; mix: one channel.")
    ] = "each",
    track: cli.Track = None,
    strength: Annotated[
        float, typer.Option("--strength", "--wet", min=0.0, max=1.0, help="1 all restored, 0 as it came.")
    ] = 1.0,
    atten_limit: Annotated[
        float | None, typer.Option("--atten-limit", min=0.0, help="Reduce nothing by more dB than this.")
    ] = None,
    guard: Annotated[
        str, typer.Option(help="full: voice, words, level, length; sound: without words; off.")
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
    steps: Annotated[
        int | None, typer.Option("--steps", "-T", min=1, help="Rounds of a decoder that refines (WaveFit).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a decoder's noise.")] = 0,
    format: Annotated[str, typer.Option("-f", "--format", help="wav or flac.")] = "wav",
    subtype: Annotated[str, typer.Option(help="PCM_16, PCM_24, and for wav PCM_32 or FLOAT.")] = "PCM_16",
    window: Annotated[float, typer.Option(help="Seconds given to the model at once.")] = 12.0,
    window_context: Annotated[
        float, typer.Option(help="Seconds at both ends of a window that are thrown away afterwards.")
    ] = 1.0,
    context: cli.Context = None,
    device: cli.Device = "cpu",
    batch_seconds: cli.BatchSeconds = 60.0,
    name_template: cli.NameTemplate = "{relpath}.{ext}",
    overwrite: cli.Overwrite = False,
    retry_failed: cli.RetryFailed = False,
    fail_fast: cli.FailFast = False,
    dry_run: cli.DryRun = False,
    offline: cli.Offline = False,
    progress: cli.Progress = "auto",
    quiet: cli.Quiet = False,
) -> None:
    """Restore recordings, with a report beside each; what is complete is skipped when it is run again."""
    from .result import RestoreOptions

    if not adapter:
        raise ConfigError("--adapter: give the folder of a trained restorer: its adapter and its decoder")
    one_of("sr", sr, RATES)
    one_of("guard", guard, ("full", "sound", "off"))
    one_of("context", context, (None, "full", "fit"))
    one_of("progress", progress, ("auto", "plain", "json"))
    asked: dict[str, Any] = {"channels": channels, "track": track}  # checked by the options
    options = RestoreOptions(
        strength=strength,
        sample_rate=None if sr == "keep" else int(sr),
        attenuation_db=atten_limit,
        steps=steps,
        seed=seed,
        window_seconds=window,
        context_seconds=window_context,
        format=format.lower(),
        subtype=subtype.upper(),
        **asked,
    )
    from ..audio.io import AUDIO_SUFFIXES
    from ..folders import runner

    policy = runner.Policy(overwrite, retry_failed, fail_fast, name_template)
    judge = (guard, guard_seconds, guard_weights)

    def settings() -> dict[str, Any]:
        return _settings(weights, adapter, decoder, context, options, judge, offline)

    plan = runner.plan(inputs, out, [options.format, "json"], settings, AUDIO_SUFFIXES, policy, "restore")

    def open_work() -> tuple[Any, Any]:
        from .guard import guard_of
        from .restorer import Restorer

        restorer = Restorer(
            adapter,
            weights,
            decoder=decoder,
            guard=guard_of(
                guard, seconds=guard_seconds, weights=guard_weights, device=device, offline=offline
            ),
            context=context,
            device=device,
            batch_seconds=batch_seconds,
            offline=offline,
            options=options,
        )
        return restorer, lambda jobs: restorer.work(jobs, out)

    raise typer.Exit(cli.carry_out(plan, policy, open_work, progress=progress, quiet=quiet, dry_run=dry_run))


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
    return cli.run(app, argv, "restore")


if __name__ == "__main__":
    raise SystemExit(main())
