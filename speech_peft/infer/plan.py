"""What a run over a folder would do, and why: decided before any model is opened, and nothing is touched."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..terminal import printable
from .inputs import Job, gather
from .ledger import Ledger, fingerprint, reserved, settings_hash


@dataclass(frozen=True)
class Policy:
    """How a run treats what is there already and what goes wrong."""

    overwrite: bool = False
    retry_failed: bool = False
    """Only what failed in the run before."""
    fail_fast: bool = False
    name_template: str = "{relpath}.{ext}"
    """`relpath` (no suffix), `stem`, `suffix` (of the input, with its dot) and `ext` (of the output)."""


@dataclass(frozen=True)
class Step:
    """What will happen to a job, and why."""

    job: Job
    action: str
    """run, skip or refuse"""
    why: str
    outputs: tuple[str, ...] = ()
    """Those that are wanted."""
    missing: tuple[str, ...] = ()
    """Those of them that will be written."""
    bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """All steps of a run, decided before any model is loaded."""

    out: Path
    steps: tuple[Step, ...]
    settings: str
    ledger: Ledger
    begins_at: int = 0
    """The line of the ledger behind which all is of this run, or of others beside it."""

    def of(self, action: str) -> list[Step]:
        return [step for step in self.steps if step.action == action]

    def __str__(self) -> str:
        return "\n".join(printable(f"{step.action:7}{step.job.audio}  ({step.why})") for step in self.steps)


def plan(
    inputs: Sequence[str | Path],
    out: Path,
    extensions: Sequence[str],
    settings: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    suffixes: frozenset[str],
    policy: Policy | None = None,
    command: str = "",
) -> Plan:
    """What a run would do; touches nothing. Commands that share a folder are told apart by their names.

    Settings that take a while to know are given as a function, which is called when all else is in order.
    """
    policy = policy or Policy()
    jobs = gather(inputs, suffixes)
    try:
        ledger = Ledger(out, command)
    except NotADirectoryError:
        raise ConfigError(f"--out: {out} is a file, or lies below one; expected a folder") from None
    key = settings_hash(settings() if callable(settings) else settings)
    if policy.retry_failed:
        jobs = [job for job in jobs if (e := ledger.entries.get(job.id)) and e.status == "failed"]
    steps = tuple(_unique([_step(job, ledger, key, extensions, policy) for job in jobs], out))
    return Plan(out, steps, key, ledger, ledger.lines)


def _step(job: Job, ledger: Ledger, settings: str, extensions: Sequence[str], policy: Policy) -> Step:
    if job.problem and "same name" in job.problem and "{suffix}" in policy.name_template:
        job = Job(job.audio, job.relpath.removesuffix(job.audio.suffix), job.start, job.duration)
    outputs = tuple(output_name(job, extension, policy.name_template) for extension in extensions)
    if job.problem:
        return Step(job, "refuse", job.problem, outputs)
    for name in outputs:
        if reserved(name) or "\0" in name:
            return Step(job, "refuse", f"its output {name} cannot have this name", outputs)
    wanted = missing(job, ledger, settings, outputs, policy.overwrite)
    if not wanted:
        return Step(job, "skip", "done", outputs)
    for name in () if policy.overwrite else wanted:
        if why := ledger.in_the_way(name, job.id, job.audio, whole=False):
            return Step(job, "refuse", why, outputs)
    size = job.audio.stat().st_size
    return Step(job, "run", next(iter(wanted.values())), outputs, tuple(wanted), size)


def missing(
    job: Job, ledger: Ledger, settings: str, outputs: Sequence[str], overwrite: bool = False
) -> dict[str, str]:
    """The outputs that are to be written, each with the reason."""
    if overwrite:
        return dict.fromkeys(outputs, "overwrite")
    print_ = fingerprint(job.audio, job.start, job.duration)
    whys = {name: ledger.why_not_done(job.id, print_, settings, name) for name in outputs}
    return {name: why for name, why in whys.items() if why}


def output_name(job: Job, extension: str, template: str) -> str:
    """Where an output of a job lies below the output folder."""
    try:
        name = template.format(
            relpath=job.relpath, stem=Path(job.relpath).name, suffix=job.audio.suffix, ext=extension
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"name-template: {template!r} has no field {error}; there are relpath, stem, suffix, ext"
        ) from error
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(f"name-template: {name!r} would lie outside the output folder")
    return name


def _unique(steps: Iterable[Step], out: Path) -> Iterator[Step]:
    """Refuse a step whose output is another's, or is one of the inputs."""
    steps = list(steps)
    owners = Counter(name for step in steps if step.action != "refuse" for name in step.outputs)
    inputs = {step.job.audio.absolute() for step in steps}
    for step in steps:
        if step.action != "refuse":
            for name in step.outputs:
                if (out / name).absolute() in inputs:
                    step = Step(step.job, "refuse", f"its output {name} would replace an input", step.outputs)
                elif owners[name] > 1:
                    step = Step(step.job, "refuse", f"another input has the same output {name}", step.outputs)
        yield step
