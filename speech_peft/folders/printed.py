"""Results on standard output, for a pipe or to read: nothing is written to disk and nothing is remembered."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..terminal.door import say
from .inputs import Job, gather
from .options import use_threads
from .outcomes.outcome import Outcome, Work
from .progress import reporter
from .runner import DONE, FAILED, PARTIAL

STANDARD_OUTPUT = Path("-")


def where(out: Path | None, printing: bool) -> Path | None:
    """The folder for the results; None for standard output. ConfigError where both are asked for."""
    if printing and out not in (None, STANDARD_OUTPUT):
        raise ConfigError(f"--print and --out {out}: give one, or --print alone; --out - prints too")
    return None if printing or out == STANDARD_OUTPUT else out or Path(".")


def carry_out(
    inputs: Sequence[str],
    suffixes: frozenset[str],
    formats: Sequence[str],
    open_work: Callable[[], tuple[Any, Work]],
    *,
    threads: int | None,
    progress: str,
    quiet: bool,
    dry_run: bool,
) -> int:
    """Print the result of each recording, in the order they were given; returns the exit code.

    Several have a line with their name before each, as `head` has it. Progress goes to standard error.
    """
    if len(formats) != 1:
        raise ConfigError(f"--format: {', '.join(formats)} cannot all be printed; give one")
    jobs = list(gather(inputs, suffixes))
    if dry_run:
        for job in jobs:
            say(f"{'refuse' if job.problem else 'print':7}{job.audio}  ({job.problem or 'asked for'})")
        return DONE
    report = reporter("plain" if progress == "auto" else progress, quiet)  # no bar among the text
    failed = sum(job.problem is not None for job in jobs)
    for job in jobs:
        if job.problem is not None:
            report.problem(f"failed: {job.audio}: {job.problem}")
    good = [job for job in jobs if job.problem is None]
    if good:
        use_threads(threads)
        model, work = open_work()
        for outcome in _in_order(good, work):
            while model.notes:
                report.note(model.notes.pop(0))
            if outcome.error is not None:
                failed += 1
                report.problem(f"failed: {outcome.job.audio}: {outcome.error}")
                continue
            if len(jobs) > 1:
                say(f"==> {str(outcome.job.audio)!r} <==")
            say(outcome.files[formats[0]], end="")
    return DONE if not failed else FAILED if failed == len(jobs) else PARTIAL


def _in_order(jobs: Sequence[Job], work: Work) -> Iterator[Outcome]:
    """The outcome of each job when its turn comes, whatever is finished first."""
    waiting: dict[Job, Outcome] = {}
    left = iter(jobs)
    due = next(left, None)
    for outcome in work(jobs):
        waiting[outcome.job] = outcome
        while due is not None and due in waiting:
            yield waiting.pop(due)
            due = next(left, None)
