"""Options and exit codes of the commands that make folders of results from folders of recordings.

Nothing here imports torch: `--help` and a wrong argument are answered at once.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError, did_you_mean
from ..terminal.door import say
from ..terminal.exits import guarded


def new_folder(path: Path | None) -> Path | None:
    """Of an option that names a folder to write: ConfigError where it, or what it lies in, is a file."""
    at = path
    while at is not None and not at.is_dir():
        if at.exists() or at.is_symlink():
            what = "is a file" if at == path else f"lies below {at}, which is a file"
            raise ConfigError(f"--out: {path} {what}; expected a folder, which may be new")
        at = at.parent if at.parent != at else None
    return path


def device_of(name: str) -> str:
    """A device as torch calls it; raises ConfigError for one that is not there, before anything is opened."""
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    kind = "cuda" if kind == "gpu" else kind
    if kind not in ("cuda", "mps") or (number and not number.isdigit()):
        raise ConfigError(f"--device: {name!r} is no device; expected cpu, cuda, cuda:1, ... or mps")
    import torch

    there = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(number or 0) >= there:
        found = f"torch finds {there} of them" if there else "torch finds none here"
        raise ConfigError(
            f"--device: {name!r} needs a GPU, and {found}; give another, or cpu. "
            "`speech-peft doctor` says more"
        )
    return f"{kind}:{number}" if number else kind


Inputs = Annotated[list[str], typer.Argument(metavar="IN...", help="Files, folders, globs, manifests.")]
Out = Annotated[
    Path, typer.Option("-o", "--out", "--output-dir", help="Folder for the results.", callback=new_folder)
]
Context = Annotated[str | None, typer.Option(help="full or fit; the adapter's, else full.")]
Channels = Annotated[str, typer.Option(help="mix or first.")]
Track = Annotated[
    int | None, typer.Option(min=1, help="Of several audio tracks; by default the one that is marked.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ... or mps.", callback=device_of)]
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
    from . import runner
    from .progress import reporter

    if dry_run:
        for step in plan.steps:
            say(step)
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
    name = f"python -m speech_peft.{program}"
    return guarded(lambda given: app(given, standalone_mode=False, prog_name=name) or 0, arguments)


def _dashed(argument: str) -> str:
    """--beam_size is --beam-size: both spellings are in people's fingers."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value
