"""An outcome put in its place: its files under their names, complete, and then its line in the ledger."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...files.atomic import finish, write_bytes
from ..inputs import Job
from ..ledger import FOLDER, WRITING, Entry, append, digest_of, outputs_of
from ..plan import Plan, Policy, Step, output_name
from .outcome import Outcome

Written = tuple[str, int, str]
"""An output: its name, its bytes and their digest."""
# A failure to write that the next input would meet as well.
_FATAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})


@dataclass(frozen=True)
class Placed:
    """What became of an outcome."""

    outcome: Outcome
    status: str
    """ok, truncated or failed"""
    error: str | None
    print: str
    """Of the input, when the outcome was there."""
    written: Sequence[Written]
    fatal: bool
    """Whether the next input would fail as this one did."""


class Placing:
    """Where the outcomes of a plan go."""

    def __init__(self, plan: Plan, policy: Policy):
        self.plan, self.ledger, self.folder = plan, plan.ledger, plan.out / FOLDER
        self._template, self._overwrite = policy.name_template, policy.overwrite

    def place(self, step: Step, outcome: Outcome, print_before: str | None) -> Placed:
        """Put the outputs in their places, or say why not; nothing that is not ours goes."""
        job = outcome.job
        print_ = job.fingerprint()
        error, written, fatal = outcome.error, [], False
        if error is None and print_before not in (None, print_):
            error = "was changed while it was read; run it again"
        if error is None:
            try:
                self._write(step, outcome, print_, written)
            except _InTheWay as failure:
                error = str(failure)
            except (OSError, ValueError) as failure:
                error = f"cannot be written: {getattr(failure, 'strerror', None) or failure}"
                fatal = isinstance(failure, OSError) and failure.errno in _FATAL
        status = "failed" if error else "truncated" if outcome.truncated else "ok"
        return Placed(outcome, status, error, print_, tuple(written), fatal)

    def record(self, placed: Placed) -> None:
        """The line of the ledger and, of a failure, that of the errors. Raises OSError."""
        outcome, error = placed.outcome, placed.error
        stage = outcome.stage or ("write" if error else "")
        entry = self._entry(outcome.job, placed.status, placed.print, placed.written)
        self.ledger.add(
            replace(
                entry,
                audio_seconds=round(outcome.audio_seconds, 3),
                seconds=round(outcome.seconds, 4),
                error=error,
                stage=stage,
            )
        )
        if error:
            job = outcome.job
            row = {"path": str(job.audio), "stage": stage, "error": error, "id": job.id}
            append(self.folder / "errors.jsonl", row)

    def _entry(self, job: Job, status: str, print_: str, written: Sequence[tuple[str, int, str]]) -> Entry:
        sizes, digests = outputs_of(written)
        return Entry(
            id=job.id,
            audio=os.path.abspath(job.audio),
            status=status,
            fingerprint=print_,
            settings=self.plan.settings,
            outputs=sizes,
            command=self.ledger.command,
            digests=digests,
        )

    def _write(self, step: Step, outcome: Outcome, print_: str, written: list[tuple[str, int, str]]) -> None:
        """`written` grows by each output that is in its place."""
        job, ready = outcome.job, []
        for extension, content in outcome.files.items():
            name = output_name(job, extension, self._template)
            if name in step.missing:
                raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
                size = raw.stat().st_size if isinstance(raw, Path) else len(raw)
                ready.append((name, raw, (name, size, digest_of(raw) or "")))
        self.ledger.refresh()
        for name, _, _ in () if self._overwrite else ready:
            if why := self.ledger.in_the_way(name, job.id, job.audio):
                raise _InTheWay(why)
        self.ledger.add(self._entry(job, WRITING, print_, [made for _, _, made in ready]))
        for name, raw, made in ready:
            if isinstance(raw, Path):
                finish(raw, self.plan.out / name)
            else:
                write_bytes(self.plan.out / name, raw)
            written.append(made)


class _InTheWay(Exception):
    """A file that is not ours has the name of an output."""
