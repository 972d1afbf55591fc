"""One shard from its rows to its mark: what a process does, alone or as an actor of a cluster."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..audio import store
from ..audio.store import Store
from ..files.atomic import finish, temporary_beside
from ..folders.inputs import Job
from ..folders.ledger import FOLDER, digest_of
from ..folders.outcomes.outcome import Outcome, Work
from ..folders.plan import output_name
from . import files, marks
from .blocks import Block
from .marks import Mark, Terms

Opened = tuple[Any, Work]
"""A model, which has notes for the user, and what makes outcomes with it."""


@dataclass(frozen=True)
class Task:
    """What a verb does with rows; sent to other machines as it is."""

    out: str
    terms: Terms
    open_work: Callable[[], Opened]
    name_template: str = "{relpath}.{ext}"

    @property
    def store(self) -> Store:
        return store.at(self.out)


class Rows:
    """The outcomes of one shard, kept until all are there; sound lies in a folder meanwhile."""

    def __init__(self, jobs: Sequence[Job], template: str, extension: str):
        self._folder = tempfile.TemporaryDirectory(prefix="speech_peft-shard-")
        self._by_job: dict[Job, Outcome] = {}
        self.jobs = jobs
        self.todo: list[Job] = []
        """Those that can be tried: others have a problem, or the name of one before."""
        taken: dict[str, Job] = {}
        for job in jobs:
            before = taken.setdefault(output_name(job, extension, template), job)
            if job.problem or before != job:
                same = f"row {before.relpath!r} of the same shard has the same output; give it an id"
                self._by_job.setdefault(job, Outcome(job, error=job.problem or same, stage="plan"))
            elif before is job:
                self.todo.append(job)

    def keep(self, outcome: Outcome) -> None:
        made = {}
        for name, content in outcome.files.items():
            if isinstance(content, Path):
                own = Path(self._folder.name, f"{len(self._by_job):07}.{name}")
                finish(content, own)
                content = own
            made[name] = content
        self._by_job[outcome.job] = replace(outcome, files=made)

    def refused(self) -> list[Outcome]:
        return list(self._by_job.values())

    def lacking(self) -> list[Job]:
        """What has no outcome yet."""
        return [job for job in self.todo if job not in self._by_job]

    def all(self) -> list[Outcome]:
        """In the order of the rows, each once."""
        return [self._by_job[job] for job in dict.fromkeys(self.jobs) if job in self._by_job]

    def close(self) -> None:
        self._folder.cleanup()


def carry_out(
    task: Task, block: Block, name: str, jobs: Sequence[Job], work: Work, told: Callable[[Outcome], None]
) -> Mark:
    """Make a shard, file and mark. `told` hears of each outcome; what it raises ends it without a mark."""
    began = time.monotonic()
    with closing(Rows(jobs, task.name_template, task.terms.extensions[0])) as rows:
        for outcome in rows.refused():
            told(outcome)
        for outcome in work(rows.todo) if rows.todo else ():
            rows.keep(outcome)
            told(outcome)
        for job in rows.lacking():
            rows.keep(Outcome(job, error="was given no result", stage=task.terms.command))
        return committed(task, block, name, rows.all(), time.monotonic() - began)


def committed(task: Task, block: Block, name: str, rows: Sequence[Outcome], seconds: float) -> Mark:
    """Write the rows of a shard under its name, then its mark."""
    good = [row for row in rows if row.error is None]
    place = task.store
    file, size, sha256, own = _written(task, place, name, good)
    mark = Mark(
        name=name,
        place=block.place,
        settings=task.terms.settings,
        file=file,
        bytes=size,
        sha256=sha256,
        rows=len(rows),
        ok=len(good),
        truncated=sum(row.truncated for row in good),
        failed=tuple(_failure(row) for row in rows if row.error is not None),
        audio_seconds=round(sum(row.audio_seconds for row in rows), 3),
        seconds=round(seconds, 3),
        retries=store.retried(),
        files=own,
    )
    marks.made(place, mark)
    return mark


def _written(
    task: Task, place: Store, name: str, rows: Sequence[Outcome]
) -> tuple[str, int, str, Mapping[str, str]]:
    """Name, bytes and digest of the shard's file; or, of rows with files of their own, those."""
    if task.terms.format == "files":
        own, size = {}, 0
        for row in rows:
            for extension, content in row.files.items():
                raw = files.encoded(content)
                place.write(named := output_name(row.job, extension, task.name_template), raw)
                own[named], size = digest_of(raw) or "", size + len(raw)
        return "", size, "", own
    file = f"{name}.{task.terms.format}"
    local = not store.is_remote(task.out)
    # Beside its final place, where one rename makes it appear; for a store, where there is room.
    half = temporary_beside(Path(task.out, FOLDER, file)) if local else _temporary(file)
    try:
        files.WRITERS[task.terms.format](half, rows, task.terms.extensions)
        size, sha256 = half.stat().st_size, files.digest(half)
        if local:
            finish(half, Path(task.out, file))
        else:
            place.put(file, half)
    finally:
        half.unlink(missing_ok=True)
    return file, size, sha256, {}


def _temporary(name: str) -> Path:
    number, path = tempfile.mkstemp(prefix="speech_peft-", suffix=Path(name).suffix)
    os.close(number)
    return Path(path)


def _failure(row: Outcome) -> Mapping[str, str]:
    job = row.job
    return {"path": str(job.audio), "stage": row.stage, "error": row.error or "", "id": job.relpath}


def scratch(out: Path) -> Path:
    """Where what is too large to hold lies until it is in its shard: beside it, or with temporary files."""
    return Path(tempfile.gettempdir()) if store.is_remote(out) else out
