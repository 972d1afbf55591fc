"""Options and exit codes of the commands that make folders of results from folders of recordings.

Nothing here imports torch: `--help` and a wrong argument are answered at once.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import ConfigError, SpeechPeftError, did_you_mean

Inputs = Annotated[list[str], typer.Argument(metavar="IN...", help="Files, folders, globs, manifests.")]
Out = Annotated[Path, typer.Option("-o", "--out", "--output-dir", help="Folder for the results.")]
Context = Annotated[str | None, typer.Option(help="full or fit; the adapter's, else full.")]
Channels = Annotated[str, typer.Option(help="mix or first.")]
Device = Annotated[str, typer.Option()]
BatchSeconds = Annotated[float, typer.Option(min=1.0, help="Audio in one batch.")]
NameTemplate = Annotated[str, typer.Option(help="Names of outputs, of {relpath} {stem} {suffix} {ext}.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do again what is done.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Only what failed before.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why; do nothing.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the network.")]
Progress = Annotated[str, typer.Option(help="auto, plain or json (a line an event, on standard error).")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only failures.")]


def new_app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def one_of(name: str, value: str | None, allowed: Iterable[str | None]) -> None:
    """Raise ConfigError when the value of an option is none of those it may have."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ConfigError(
            f"{name}: {value!r} is none of its values. {did_you_mean(str(value), filter(None, allowed))}"
        )


def content_of(adapter: str | Path) -> str:
    """What stands for an adapter in a run's settings: its content, so that one trained anew counts as new."""
    from hashlib import sha256

    folder = Path(adapter)
    if not folder.is_dir():
        return str(adapter)
    digest = sha256()
    for file in [*sorted(folder.glob("*.safetensors")), folder / "adapter.json"]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def carry_out(
    plan: Any,
    policy: Any,
    open_work: Callable[[], tuple[Any, Callable[[Iterable[Any]], Iterator[Any]]]],
    *,
    progress: str,
    quiet: bool,
    dry_run: bool,
) -> int:
    """The exit code of a planned run, reported as it goes; of a dry run, only the plan.

    `open_work` opens the model when there is something to do; gives it and what makes outcomes.
    """
    from .infer import runner
    from .infer.progress import reporter

    if dry_run:
        print(plan)
        return 0
    report = reporter(progress, quiet)

    def work(jobs: Iterable[Any]) -> Iterator[Any]:
        report.note("opening the model")
        model, outcomes = open_work()
        for outcome in outcomes(jobs):
            while model.notes:
                report.note(model.notes.pop(0))
            yield outcome

    return runner.run(plan, work, report, policy)


def run(app: typer.Typer, argv: list[str] | None, program: str) -> int:
    """Exit codes: 0 done, 1 all failed, 2 wrong usage, 3 some failed, 130 interrupted."""
    arguments = [_dashed(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    try:
        return app(arguments, standalone_mode=False, prog_name=f"python -m speech_peft.{program}") or 0
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SpeechPeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        show: Any = getattr(error, "show", None)  # an argument error of the parser
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
