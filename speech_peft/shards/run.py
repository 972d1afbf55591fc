"""Shards carried out by this process, which shares them with any others that do the same.

A shard is taken by a lease, made, and said to be done; what is done already is passed by. So the same command
may run on many machines at once, be killed anywhere, and be run again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from ..audio.store import Store, retried
from ..folders.ledger import FOLDER
from ..folders.outcomes.outcome import Outcome
from ..folders.progress import Progress, spent
from ..folders.runner import DONE, FAILED, INTERRUPTED, PARTIAL, Policy
from ..terminal.interrupts import sigterm_as_ctrl_c
from . import marks
from .blocks import Block, Cut, name_of
from .leases import Keeper, kept
from .marks import Mark
from .work import Opened, Task, carry_out


class Stopped(Exception):
    """The first failure ends the run."""


def run(task: Task, cut: Cut, progress: Progress, policy: Policy) -> int:
    """The exit code. Marks, errors and summary lie in `OUT/.speech_peft`."""
    with sigterm_as_ctrl_c():
        return Run(task, cut, progress, policy)(lambda run: Here(run).carry_out())


class Run:
    """What is counted and told of a run, whoever does the work."""

    def __init__(self, task: Task, cut: Cut, progress: Progress, policy: Policy):
        self.task, self.cut, self.progress, self.policy = task, cut, progress, policy
        self.store: Store = task.store
        self.counts: Counter[str] = Counter()
        self.audio_seconds = 0.0
        self.retries = 0
        self.started = self.opened = time.monotonic()

    def __call__(self, carry_out: Callable[["Run"], None]) -> int:
        marks.agreed(self.store, self.task.terms, self.policy.overwrite)
        self.done = marks.names(self.store)
        rows = self.cut.rows()
        self.progress.start(rows, rows, 0)
        stopped, interrupted = False, False
        try:
            carry_out(self)
        except KeyboardInterrupt:
            interrupted = True
        except Stopped:
            stopped = True
        except OSError as error:
            stopped = True
            self.progress.problem(f"error: {error}")
        failed = 0
        with suppress(OSError):
            failed = marks.write_errors(self.store)
        code = INTERRUPTED if interrupted else self._code(stopped, failed)
        self.progress.end(self._summary(code))
        return code

    def to_do(self, block: Block) -> tuple[str, list[Any]] | None:
        """Name and rows of a shard that is not done; None of one that is."""
        jobs = list(block.jobs())
        name = name_of(block, jobs, self.task.terms.settings)
        if not self.is_done(name):
            return name, jobs
        self.counts["shards"] += 1
        self.counts["skipped"] += len(jobs)
        marks.superseded(self.store, name, self.done)
        return None

    def is_done(self, name: str) -> bool:
        if name not in self.done:
            return False
        if not self.policy.retry_failed:
            return True
        return not next(marks.marks(self.store, [name])).failed

    def opening(self) -> None:
        self.opened = time.monotonic()
        self.progress.opened()

    def told(self, outcome: Outcome) -> None:
        """One row is done, though its shard is not yet."""
        status = "failed" if outcome.error else "truncated" if outcome.truncated else "ok"
        self.counts[status] += 1
        self.audio_seconds += outcome.audio_seconds
        self.progress.file(str(outcome.job.audio), status, outcome.audio_seconds, 1, outcome.error)
        if outcome.error and self.policy.fail_fast:
            raise Stopped

    def told_of(self, mark: Mark) -> None:
        """The same of all rows of a shard that others made."""
        for row in mark.failed:
            self.counts["failed"] += 1
            self.progress.file(row["path"], "failed", 0.0, 1, row["error"])
        self.counts["truncated"] += mark.truncated
        self.counts["ok"] += mark.ok - mark.truncated
        self.audio_seconds += mark.audio_seconds
        for _ in range(mark.ok):
            self.progress.file(mark.file or mark.name, "ok", mark.audio_seconds / mark.ok, 1, None)
        if mark.failed and self.policy.fail_fast:
            raise Stopped

    def made(self, mark: Mark) -> None:
        self.done.add(mark.name)
        self.counts["shards"] += 1
        self.retries += mark.retries

    def _code(self, stopped: bool, failed: int) -> int:
        left = self.task.terms.shards - self.counts["shards"] - self.counts["elsewhere"]
        if not (stopped or failed or left):
            return DONE
        good = self.counts["ok"] + self.counts["truncated"] + self.counts["skipped"]
        return PARTIAL if good else FAILED

    def _summary(self, code: int) -> dict[str, Any]:
        names = ("ok", "truncated", "skipped", "failed")
        summary = {
            **{name: self.counts[name] for name in names},
            "elsewhere": 0,
            "not_done": 0,
            "shards": self.task.terms.shards,
            "shards_done": self.counts["shards"],
            "shards_elsewhere": self.counts["elsewhere"],
            "retries": self.retries + retried(),
            **spent(self.audio_seconds, self.started, self.opened),
            "settings": self.task.terms.settings,
            "exit_code": code,
        }
        with suppress(OSError):
            self.store.write(f"{FOLDER}/summary.json", marks._json(summary))
        return summary


class Here:
    """One process: shard after shard, with a model that is opened for the first."""

    def __init__(self, run: Run):
        self.run, self.task = run, run.task
        self._opened: Opened | None = None

    def carry_out(self) -> None:
        with kept(self.run.store, self.task.terms.command) as keeper:
            left = [block for block in self.run.cut if not self._one(block, keeper)]
            # What others are at is asked for once more: they may have been killed.
            left = [block for block in left if not self._one(block, keeper)]
            self.run.counts["elsewhere"] += len(left)

    def _one(self, block: Block, keeper: Keeper) -> bool:
        """Whether the shard needs no further look."""
        todo = self.run.to_do(block)
        if todo is None:
            return True
        name, jobs = todo
        if not keeper.take(name):
            return False
        try:
            self.run.done |= marks.names(self.run.store)
            if self.run.is_done(name):
                self.run.counts["shards"] += 1
                self.run.counts["skipped"] += len(jobs)
            else:
                self.run.made(carry_out(self.task, block, name, jobs, self._work, self.run.told))
        finally:
            keeper.release(name)
        return True

    def _work(self, jobs: Iterable[Any]) -> Iterator[Outcome]:
        if self._opened is None:
            self.run.progress.note("opening the model")
            self._opened = self.task.open_work()
            self.run.opening()
        model, work = self._opened
        for outcome in work(jobs):
            while model.notes:
                self.run.progress.note(model.notes.pop(0))
            yield outcome
