"""What a run over a folder would do, and why: decided without any model, and nothing is touched.

A step is planned when it is asked for, so that a million rows are no more to hold than one.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..audio.containers.held import is_held, size_of
from ..errors import ConfigError
from ..terminal.door import printable
from .inputs import Gathered, Job, gather
from .ledger import Ledger, reserved, settings_hash
from .names import Names


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

    def __str__(self) -> str:
        return printable(f"{self.action:7}{self.job.audio}  ({self.why})")


@dataclass(frozen=True)
class Plan:
    """The steps of a run, each planned when it is asked for; nothing is touched by planning."""

    out: Path
    steps: Iterable[Step]
    """May be gone through more than once; each time it says what is to do then."""
    settings: str
    ledger: Ledger
    begins_at: int = 0
    """The line of the ledger behind which all is of this run, or of others beside it."""
    count: Callable[[], int] = lambda: 0
    """How many steps there are at most; takes a while for large folders."""


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
    jobs = gather(inputs, suffixes, at_once=any(f".{name}" in suffixes for name in extensions))
    for extension in extensions:
        output_name(next(iter(jobs)), extension, policy.name_template)
    try:
        ledger = Ledger(out, command)
    except NotADirectoryError:
        raise ConfigError(f"--out: {out} is a file, or lies below one; expected a folder") from None
    key = settings_hash(settings() if callable(settings) else settings)
    steps = _Steps(jobs, _Planner(out, ledger, key, tuple(extensions), suffixes, policy, jobs))
    return Plan(out, steps, key, ledger, ledger.lines, steps.count)


@dataclass(frozen=True)
class _Steps:
    """Each once: what is given twice is one, and the second with an output of another is refused."""

    jobs: Gathered
    planner: "_Planner"

    def __iter__(self) -> Iterator[Step]:
        given, outputs = Names(), Names()
        for job in self.jobs:
            known = f"{job.audio}\0{job.relpath}\0{job.start}\0{job.duration}"
            if known in given:
                continue
            given.add(known)
            step = self.planner.step(job, outputs)
            if self.planner.wanted(step):
                yield step

    def count(self) -> int:
        if self.planner.policy.retry_failed:
            return sum(entry.status == "failed" for entry in self.planner.ledger.entries.values())
        return self.jobs.count()


@dataclass(frozen=True)
class _Planner:
    """What will be done with each job, in the light of the ledger."""

    out: Path
    ledger: Ledger
    settings: str
    extensions: tuple[str, ...]
    suffixes: frozenset[str]
    policy: Policy
    jobs: Gathered

    def wanted(self, step: Step) -> bool:
        """Whether it is one of those that a run is to do again."""
        entry = self.ledger.entries.get(step.job.id)
        return not self.policy.retry_failed or (entry is not None and entry.status == "failed")

    def step(self, job: Job, taken: Names) -> Step:
        """`taken` are the outputs of the jobs before; those of this one join them."""
        outputs = tuple(
            output_name(job, extension, self.policy.name_template) for extension in self.extensions
        )
        if job.problem:
            return Step(job, "refuse", job.problem, outputs)
        for name in outputs:
            if reserved(name) or "\0" in name:
                return Step(job, "refuse", f"its output {name} cannot have this name", outputs)
            if name in taken:
                return self._namesake(job, name, outputs, taken)
        step = self._in_order(job, outputs)
        if step.action == "refuse":
            # What is in the way may be another process's, whose line precedes it but was not read yet.
            self.ledger.refresh()
            step = self._in_order(job, outputs)
        if step.action != "refuse":
            for name in outputs:
                taken.add(name, str(job.audio))
        return step

    def _namesake(self, job: Job, name: str, outputs: tuple[str, ...], taken: Names) -> Step:
        of = f", {taken.owner(name)}" if taken.owner(name) else ""
        why = (
            f"another input{of} comes before it and has the same output {name}; rename one, run them into "
            "different folders, or keep suffixes with --name-template '{relpath}{suffix}.{ext}'"
        )
        named = replace(job, relpath=job.relpath + job.audio.suffix)  # a name for its row
        return Step(named, "refuse", why, outputs)

    def _in_order(self, job: Job, outputs: tuple[str, ...]) -> Step:
        overwrite = self.policy.overwrite
        wanted = missing(job, self.ledger, self.settings, outputs, overwrite)
        if not wanted:
            return Step(job, "skip", "done", outputs)
        for name in wanted:
            if self._is_input(name):
                return Step(job, "refuse", f"its output {name} would replace an input", outputs)
            if not overwrite and (why := self.ledger.in_the_way(name, job.id, job.audio, whole=False)):
                return Step(job, "refuse", why, outputs)
        try:
            size = size_of(job.audio) if is_held(job.audio) else job.audio.stat().st_size
        except OSError as error:  # it went between two looks
            return Step(job, "refuse", (error.strerror or str(error)).lower(), outputs)
        return Step(job, "run", next(iter(wanted.values())), outputs, tuple(wanted), size)

    def _is_input(self, name: str) -> bool:
        """Whether an output that is there already is a recording that was given."""
        path = self.out / name
        return os.path.lexists(path) and os.path.abspath(path) in self._inputs

    @cached_property
    def _inputs(self) -> Names:
        """Looked through once, and only where an output is in the place of something."""
        found = Names()
        for job in self.jobs:
            found.add(os.path.abspath(job.audio))
        return found


def missing(
    job: Job, ledger: Ledger, settings: str, outputs: Sequence[str], overwrite: bool = False
) -> dict[str, str]:
    """The outputs that are to be written, each with the reason."""
    if overwrite:
        return dict.fromkeys(outputs, "overwrite")
    print_ = job.fingerprint()
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
