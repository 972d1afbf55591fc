"""Options that several commands have: here each has one name, one default and one meaning.

Nothing here imports torch until a GPU is asked for: `--help` and a wrong argument are answered at once.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..decoders.diffusion.by_device import MOST, count_of
from ..errors import ConfigError
from ..terminal.door import say


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
    """A device as torch calls it, or auto; raises ConfigError for one that is not there, before all else."""
    if name in ("auto", "cpu"):
        return name
    kind, _, number = name.partition(":")
    kind = "cuda" if kind == "gpu" else kind
    if kind not in ("cuda", "mps") or (number and not number.isdigit()):
        raise ConfigError(f"--device: {name!r} is no device; expected auto, cpu, cuda, cuda:1, ... or mps")
    import torch

    there = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(number or 0) >= there:
        found = f"torch finds {there} of them" if there else "torch finds none here"
        raise ConfigError(
            f"--device: {name!r} needs a GPU, and {found}; give another, or cpu. "
            "`speech-peft doctor` says more"
        )
    return f"{kind}:{number}" if number else kind


def found_device(name: str) -> str:
    """What auto is on this machine: the first CUDA GPU, or else the CPU. Others stay as they are."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def use_threads(threads: int | None) -> None:
    """So many threads compute from here on; None leaves it to torch."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


Inputs = Annotated[list[str], typer.Argument(metavar="IN", help="Files, folders, globs, manifests.")]
Out = Annotated[
    Path, typer.Option("-o", "--out", "--output-dir", help="Folder for the results.", callback=new_folder)
]
OutOrScreen = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        "--output-dir",
        help="Folder for the results, by default here; - for standard output.",
        callback=new_folder,
    ),
]
Print = Annotated[bool, typer.Option("--print", help="Results to standard output and into no file.")]
ADDRESS = "a folder, a hub id, pkg:PACKAGE/path or a name such as base"
Context = Annotated[
    Literal["full", "fit"] | None, typer.Option(help="Audio given to the encoder; the adapter's, else full.")
]
Channels = Annotated[Literal["mix", "first"], typer.Option(help="Of several channels.")]
Track = Annotated[
    int | None, typer.Option(min=1, help="Of several audio tracks; by default the one that is marked.")
]
AdapterTask = Annotated[
    str | None,
    typer.Option(help="Which of its tasks, for an adapter that differs by task; else a manifest's column."),
]
SpeakerReference = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A recording of the one who is wanted of those who talk, for an adapter that listens to it.",
    ),
]

Language = Annotated[
    str | None, typer.Option(help="Code such as de; found by itself when not given.", metavar="<code>")
]
BeamSize = Annotated[int, typer.Option(min=1, max=20, help="Texts followed at once; 1 is greedy.")]
_COUNT = f"[auto|1..{MOST}]"
Passes = Annotated[
    Any,
    typer.Option(
        parser=count_of,
        metavar=_COUNT,
        help="Passes of a decoder by diffusion; auto: 8, on a GPU 16; of several texts 4; of a draft 1.",
    ),
]
Texts = Annotated[
    Any,
    typer.Option(parser=count_of, metavar=_COUNT, help="Texts that it chooses from; auto: 1."),
]
Selection = Annotated[
    Literal["confidence", "mbr", "sum", "rover", "rover-sum"], typer.Option(help="How it chooses.")
]
Device = Annotated[
    str,
    typer.Option(
        metavar="[auto|cpu|cuda[:N]|mps]", help="auto: the first CUDA GPU, else the CPU.", callback=device_of
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="auto: float32. bfloat16 where the machine is faster with it."),
]
Engine = Annotated[
    Literal["auto", "torch", "ct2"],
    typer.Option(help="auto: ct2 (CTranslate2) where it is installed and can run the model, else torch."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Of the CPU; as torch chooses if not given.")]
BatchSeconds = Annotated[float, typer.Option(min=1.0, help="Audio in one batch.")]
NameTemplate = Annotated[str, typer.Option(help="Names of outputs, of {relpath} {stem} {suffix} {ext}.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do again what is done.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Only what failed before.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why; do nothing.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the network.")]
Progress = Annotated[
    Literal["auto", "plain", "json"],
    typer.Option(help="On standard error: a bar on a terminal, else lines; or an object an event."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only failures.")]


def carry_out(
    plan: Any,
    policy: Any,
    open_work: Callable[[], tuple[Any, Callable[[Iterable[Any]], Iterator[Any]]]],
    *,
    threads: int | None,
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
        use_threads(threads)
        model, outcomes = open_work()
        for outcome in outcomes(jobs):
            while model.notes:
                report.note(model.notes.pop(0))
            yield outcome

    return runner.run(plan, work, report, policy)
