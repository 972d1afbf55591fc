"""A folder in, a folder out: what to do, doing it, and the record of it. It knows nothing of models.

Outputs appear under their final names complete or not at all, and the ledger gets its line after them; so a
run that is killed anywhere is continued by running it again. One bad file is a row with the reason.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from ..files import json_text
from ..files.atomic import sweep, write_text
from ..terminal.interrupts import held, sigterm_as_ctrl_c
from .agenda import Agenda
from .claims import Claims
from .inputs import Job
from .ledger import FOLDER
from .outcomes.outcome import Outcome, Work
from .outcomes.placing import Placing
from .plan import Plan, Policy, Step, missing
from .plan import plan as plan
from .progress import Progress, spent

DONE, PARTIAL, FAILED, INTERRUPTED = 0, 3, 1, 130


def run(plan: Plan, work: Work, progress: Progress, policy: Policy | None = None) -> int:
    """Carry a plan out; returns the exit code. Ledger, errors and summary lie in `OUT/.speech_peft`.

    Other processes may carry out the same plan beside it: each input is done by one of them.
    """
    with sigterm_as_ctrl_c():
        return _Run(plan, progress, policy or Policy())(work)


class _Stopped(Exception):
    """The run cannot go on: what every further input needs is gone, such as room on the disk."""


class _Run:
    def __init__(self, plan: Plan, progress: Progress, policy: Policy):
        self.plan, self.progress, self.policy = plan, progress, policy
        self.ledger, self.placing = plan.ledger, Placing(plan, policy)
        self.folder = plan.out / FOLDER
        self.claims = Claims(self.folder / "claims", plan.ledger.command)
        self.steps: dict[Job, Step] = {}
        """Of the inputs that are being worked on."""
        self.prints: dict[Job, str] = {}
        """Of the same, from before they were read."""
        self.agenda = Agenda(plan)
        self.counts = self.agenda.counts
        self.audio_seconds = 0.0
        self._one = threading.RLock()  # whoever reads plans, and what it refuses is done then and there
        self.started = self.opened = time.monotonic()

    def __call__(self, work: Work) -> int:
        interrupted, stopped = False, None
        try:
            self._do(work)
        except KeyboardInterrupt:
            interrupted = True
        except _Stopped as error:
            stopped = str(error)
        except OSError as error:
            stopped = _said(error)
        code = INTERRUPTED if interrupted else self._code(stopped is not None)
        summary = self._summary(code)
        if stopped:
            self.progress.problem(f"error: {stopped}")
        with suppress(OSError):  # a full disk was said before
            write_text(self.folder / "summary.json", _json(summary))
        self.progress.end(summary)
        return code

    def _do(self, work: Work) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.plan.out)  # what killed runs left behind
        if not self.claims.others():
            write_text(self.folder / "errors.jsonl", "")
        self.agenda.look_ahead()
        self.progress.start(self.agenda.files, self.agenda.bytes, self.counts["skipped"])
        with self.claims.kept():
            jobs = self._claimed(self._to_run())
            if (first := next(jobs, None)) is None:
                return  # nothing to do, or nothing that others are not at: no model is opened
            with closing(_closable(work(self._handed(first, jobs)))) as outcomes:
                for outcome in outcomes:
                    self._commit(outcome)
                    self.claims.release(outcome.job.id)
                    if self._stop():
                        return

    def _to_run(self) -> Iterator[Step]:
        """What is refused fails on the way, and where the first failure ends a run nothing follows it."""
        for step in self.agenda:
            if step.action == "run":
                yield step
                continue
            self.steps[step.job] = step
            self._commit(Outcome(step.job, error=step.why, stage="plan"))
            if self._stop():
                return

    def _handed(self, first: Job, others: Iterator[Job]) -> Iterator[Job]:
        """The jobs; the first is asked for when the model is open, and from then on speed is measured."""
        self.opened = time.monotonic()
        self.progress.opened()
        yield first
        yield from others

    def _claimed(self, todo: Iterable[Step]) -> Iterator[Job]:
        """The jobs that are this process's to do, each claimed when it is asked for; whoever reads asks.

        What others are at is asked for once more at the end: they may have been killed.
        """
        others: list[Step] = []
        for _ in range(2):
            others = []
            for step in todo:
                if not self.claims.take(step.job.id):
                    others.append(step)
                elif self._done_meanwhile(step):
                    self.claims.release(step.job.id)
                else:
                    job = step.job
                    self.steps[job] = step
                    self.prints[job] = job.fingerprint()
                    yield job
            todo = others
        self.counts["elsewhere"] += len(others)

    def _done_meanwhile(self, step: Step) -> bool:
        """Whether another process has done it, or has failed to, since this run was planned."""
        self.ledger.refresh()
        entry = self.ledger.entries.get(step.job.id)
        if entry is None or entry.line <= self.plan.begins_at:
            return False
        if entry.settings != self.plan.settings:
            return False
        failed = entry.status == "failed"
        if not failed and missing(step.job, self.ledger, self.plan.settings, step.missing):
            return False
        self.counts["elsewhere" if failed else "skipped"] += 1
        return True

    def _stop(self) -> bool:
        return self.policy.fail_fast and self.counts["failed"] > 0

    def _commit(self, outcome: Outcome) -> None:
        with self._one, held():
            job = outcome.job
            self._commit_step(self.steps.pop(job), outcome, self.prints.pop(job, None))
            self.progress.planned(self.agenda.files, self.agenda.bytes)

    def _commit_step(self, step: Step, outcome: Outcome, print_before: str | None) -> None:
        placed = self.placing.place(step, outcome, print_before)
        self.counts[placed.status] += 1
        self.audio_seconds += outcome.audio_seconds
        shown = str(outcome.job.audio), placed.status, outcome.audio_seconds, step.bytes, placed.error
        self.progress.file(*shown)
        try:
            self.placing.record(placed)
        except OSError as failure:
            raise _Stopped(_said(failure)) from failure
        if placed.fatal:
            raise _Stopped(f"{self.plan.out}: {placed.error}")

    def _code(self, stopped: bool) -> int:
        good = self.counts["ok"] + self.counts["truncated"] + self.counts["skipped"]
        bad = self.counts["failed"] or stopped
        return DONE if not bad else PARTIAL if good else FAILED

    def _summary(self, code: int) -> dict[str, Any]:
        names = ("ok", "truncated", "skipped", "failed", "elsewhere")
        return {
            **{name: self.counts[name] for name in names},
            "not_done": max(0, self.agenda.steps - sum(self.counts[name] for name in names)),
            **spent(self.audio_seconds, self.started, self.opened),
            "settings": self.plan.settings,
            "exit_code": code,
        }


def _closable(outcomes: Iterator[Outcome]) -> Any:
    """Whoever makes outcomes is told when no more are wanted, so that what it holds is put away now."""
    return outcomes if hasattr(outcomes, "close") else (outcome for outcome in outcomes)


def _said(error: OSError) -> str:
    """Where and what, in one line."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _json(summary: Mapping[str, Any]) -> str:
    return json_text.write(summary, indent=2) + "\n"
