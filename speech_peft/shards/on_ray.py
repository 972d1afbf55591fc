"""Shards carried out by the actors of a Ray cluster: each holds the model, and commits what it makes.

A shard is given to one actor at a time, and no more shards are on their way than there are actors: that is
all that is held, however many rows there are. An actor that dies, or finishes no row for `row_seconds`, is
replaced, and its shard is gone through again row by row; a row that then ends an actor twice by itself is
put in quarantine: a failure with its name. Outcomes of single rows are kept by Ray for the driver, so that
none is made anew when the next row ends the actor. `map_batches` of Ray Data knows no such row: it would
try it for ever.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..folders.inputs import Job
from ..folders.outcomes.outcome import Outcome
from ..folders.progress import Progress
from ..folders.runner import Policy
from ..terminal.interrupts import sigterm_as_ctrl_c
from . import marks
from .asked import Asked
from .blocks import Block, Cut
from .leases import Keeper, kept
from .marks import Mark
from .run import Run
from .work import Opened, Rows, Task, carry_out, committed

QUARANTINE = "quarantine"
DEATHS = 2
"""Of actors that had this row alone, until it is left."""
_UNOPENED = 3
"""Actors for each of those asked for that may end while they open the model."""
_LOOK_SECONDS = 0.5


def run(task: Task, cut: Cut, progress: Progress, policy: Policy, asked: Asked) -> int:
    """The exit code. Raises ConfigError where Ray is not installed or no cluster answers."""
    ray = _ray()
    started = _connected(ray, asked)  # before the signals are ours: it takes them
    try:
        with sigterm_as_ctrl_c():
            return Run(task, cut, progress, policy)(lambda run: _Pool(ray, run, asked).carry_out())
    finally:
        if started:
            ray.shutdown()


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise ConfigError("--on ray: needs Ray: pip install 'speech_peft[ray]'") from None


def _connected(ray: Any, asked: Asked) -> bool:
    """Whether this process began with Ray, and is to end with it."""
    if ray.is_initialized():
        return False
    here = {"num_cpus": asked.workers, "include_dashboard": False} if asked.address is None else {}
    try:
        ray.init(address=asked.address or "local", log_to_driver=False, logging_level="error", **here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--address {asked.address}: no Ray cluster answers ({error})") from error
    return True


class Worker:
    """One actor: a model, and the shards or rows that it is given. It answers `so_far` while it works."""

    def __init__(self, task: Task):
        self.task, self._rows = task, 0
        self._opened: Opened | None = None
        self._notes: list[str] = []

    def open(self) -> None:
        """Open the model; what ends an actor before that is no row's doing."""
        self._opened = self.task.open_work()

    def shard(self, block: Block, name: str) -> tuple[Mark, list[str]]:
        """Make a shard and commit it."""
        jobs = list(block.jobs())
        return carry_out(self.task, block, name, jobs, self._work, lambda outcome: None), self._told()

    def row(self, job: Job) -> Outcome:
        """One row alone; sound is given back as bytes, as this process may not live to write it."""
        for outcome in self._work([job]):
            files = {
                name: content.read_bytes() if isinstance(content, Path) else content
                for name, content in outcome.files.items()
            }
            return replace(outcome, files=files)
        return Outcome(job, error="was given no result", stage=self.task.terms.command)

    def commit(self, block: Block, name: str, seconds: float, *rows: Outcome) -> Mark:
        """Write a shard whose rows were made one by one."""
        return committed(self.task, block, name, rows, seconds)

    def so_far(self) -> int:
        """Rows that were finished; what stands still hangs."""
        return self._rows

    def _work(self, jobs: Any) -> Iterator[Outcome]:
        assert self._opened is not None
        model, work = self._opened
        for outcome in work(jobs):
            self._rows += 1
            self._notes += model.notes
            model.notes.clear()
            yield outcome

    def _told(self) -> list[str]:
        told, self._notes = self._notes, []
        return told


@dataclass
class _Shard:
    """A shard on its way."""

    block: Block
    name: str
    jobs: Sequence[Job]
    began: float
    rows: Rows | None = None
    """Where it is gone through row by row: what is to do and, by job, what came of it."""
    made: dict[Job, Any] = field(default_factory=dict)
    deaths: dict[Job, int] = field(default_factory=dict)

    def next_row(self) -> Job | None:
        assert self.rows is not None
        return next((job for job in self.rows.todo if job not in self.made), None)


@dataclass
class _Slot:
    """An actor and what it is at."""

    actor: Any
    open: bool = False
    shard: _Shard | None = None
    row: Job | None = None
    answer: Any = None
    asked: Any = None
    """Its count of rows, on the way."""
    rows: int = -1
    moved: float = 0.0


class _Pool:
    def __init__(self, ray: Any, run: Run, asked: Asked):
        self.ray, self.run, self.asked, self.task = ray, run, asked, run.task
        gpus = {"num_gpus": asked.gpus_per_worker} if asked.gpus_per_worker else {}
        # Two threads: one works, one says how far it is. Dead actors are replaced here, as Ray's own
        # restarts would run the same rows again.
        made = ray.remote(num_cpus=1, max_restarts=0, max_concurrency=2, **gpus)
        self._worker = made(Worker)
        self._task = ray.put(run.task)
        self.replaced = self.opened = self.unopened = 0

    def carry_out(self) -> None:
        with kept(self.run.store, self.task.terms.command) as keeper:
            self.run.progress.note(f"{self.asked.workers} actors open the model")
            slots = [self._slot() for _ in range(self.asked.workers)]
            left: Any = self.run.cut
            for _ in range(2):
                others: list[Block] = []
                self._through(slots, self._taken(left, keeper, others), keeper)
                left = others
            self.run.counts["elsewhere"] += len(left)
        if self.replaced:
            self.run.progress.note(f"{self.replaced} actors ended and were replaced")

    def _slot(self) -> _Slot:
        return _Slot(self._worker.remote(self._task))

    def _taken(self, blocks: Any, keeper: Keeper, others: list[Block]) -> Iterator[_Shard]:
        """Shards that are this run's to do, each asked for when an actor is free."""
        for block in blocks:
            if (todo := self.run.to_do(block)) is None:
                continue
            name, jobs = todo
            if not keeper.take(name):
                others.append(block)
                continue
            self.run.done |= marks.names(self.run.store)
            if self.run.is_done(name):
                self.run.counts["shards"] += 1
                self.run.counts["skipped"] += len(jobs)
                keeper.release(name)
                continue
            yield _Shard(block, name, jobs, time.monotonic())

    def _through(self, slots: list[_Slot], shards: Iterator[_Shard], keeper: Keeper) -> None:
        while True:
            for slot in slots:
                if slot.shard is None and (shard := next(shards, None)) is not None:
                    slot.shard = shard
                    self._give(slot)
            busy = [slot for slot in slots if slot.answer is not None]
            if not busy:
                return
            self.ray.wait([slot.answer for slot in busy], timeout=_LOOK_SECONDS)
            for slot in busy:
                self._look(slot, keeper)

    def _give(self, slot: _Slot) -> None:
        """The next piece of the slot's shard: all of it, or a row, or its end."""
        shard, actor = slot.shard, slot.actor
        assert shard is not None
        slot.row, slot.asked, slot.rows, slot.moved = None, None, -1, time.monotonic()
        if not slot.open:
            slot.answer = actor.open.remote()
        elif shard.rows is None:
            slot.answer = actor.shard.remote(shard.block, shard.name)
        elif (row := shard.next_row()) is not None:
            slot.row, slot.answer = row, actor.row.remote(row)
        else:
            for outcome in shard.rows.refused():
                shard.made[outcome.job] = outcome
            rows = [shard.made[job] for job in dict.fromkeys(shard.jobs)]
            seconds = time.monotonic() - shard.began
            slot.answer = actor.commit.remote(shard.block, shard.name, seconds, *rows)

    def _look(self, slot: _Slot, keeper: Keeper) -> None:
        """Take what an actor has done, or see whether it hangs."""
        ready, _ = self.ray.wait([slot.answer], timeout=0)
        if not ready:
            if slot.open and self._hangs(slot):
                self.ray.kill(slot.actor)
                self._ended(slot, f"finished no row for {self.asked.row_seconds:g} s")
            return
        try:
            found = self.ray.get(slot.answer)
        except self.ray.exceptions.RayTaskError as error:
            raise OSError(f"an actor failed: {str(error).strip().splitlines()[-1]}") from error
        except self.ray.exceptions.RayError as error:
            self._ended(slot, type(error).__name__)
            return
        if not slot.open:
            if not self.opened:
                self.run.opening()
            slot.open, self.opened = True, self.opened + 1
            self._give(slot)
            return
        if slot.row is not None and slot.shard is not None:
            slot.shard.made[slot.row] = slot.answer
            self._give(slot)
            return
        mark, notes = found if isinstance(found, tuple) else (found, [])
        for note in notes:
            self.run.progress.note(note)
        self._made(slot, mark, keeper)

    def _hangs(self, slot: _Slot) -> bool:
        if slot.asked is None:
            slot.asked = slot.actor.so_far.remote()
        elif self.ray.wait([slot.asked], timeout=0)[0]:
            try:
                rows = self.ray.get(slot.asked)
            except self.ray.exceptions.RayError:
                rows = slot.rows  # its end is seen by its answer
            slot.asked = None
            if rows != slot.rows:
                slot.rows, slot.moved = rows, time.monotonic()
        return time.monotonic() - slot.moved > self.asked.row_seconds

    def _ended(self, slot: _Slot, why: str) -> None:
        """An actor is gone: another takes its shard, from here on row by row."""
        self.replaced += 1
        shard, row = slot.shard, slot.row
        assert shard is not None
        if not slot.open:
            self.unopened += 1
            if self.unopened > self.opened + _UNOPENED * self.asked.workers:
                raise OSError(f"{self.unopened} actors ended while they opened the model (last: {why})")
        elif shard.rows is None:
            extensions = self.task.terms.extensions
            shard.rows = Rows(shard.jobs, self.task.name_template, extensions[0])
        if row is not None:
            shard.deaths[row] = shard.deaths.get(row, 0) + 1
            if shard.deaths[row] >= DEATHS:
                what = f"ended {DEATHS} actors that had it alone (last: {why})"
                shard.made[row] = Outcome(row, error=what, stage=QUARANTINE)
        slot.actor, slot.open = self._slot().actor, False
        self._give(slot)

    def _made(self, slot: _Slot, mark: Mark, keeper: Keeper) -> None:
        shard = slot.shard
        assert shard is not None
        if shard.rows is not None:
            shard.rows.close()
        keeper.release(shard.name)
        slot.shard = slot.row = slot.answer = None
        self.run.made(mark)
        self.run.told_of(mark)
