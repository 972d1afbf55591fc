"""The steps of a run as they come, and how many there will be: exact once all are planned, a guess before."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

from .plan import Plan, Step

AHEAD = 1000
"""Steps planned before the first is done: a run of no more knows its totals from the start."""


class Agenda:
    """What of a plan is to be run or refused, in order; what is skipped is only counted."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.counts: Counter[str] = Counter()
        """What became of the steps: the run's own count, which begins with what is skipped."""
        self._seen, self._all = 0, 0
        self._to_run, self._bytes = 0, 0
        self._steps = iter(plan.steps)
        self._first: list[Step] = []

    def look_ahead(self) -> None:
        """Plan the first steps, and count the others; whatever they say of the inputs is known after it."""
        self._first = [step for step in islice(self._steps, AHEAD) if self._counted(step)]
        self._all = self._seen if self._seen < AHEAD else max(self._seen, self.plan.count())
        # What is to be refused comes first: it needs no model.
        self._first.sort(key=lambda step: step.action != "refuse")

    def __iter__(self) -> Iterator[Step]:
        yield from chain(self._first, (step for step in self._steps if self._counted(step)))
        self._all = self._seen

    def _counted(self, step: Step) -> bool:
        self._seen += 1
        if step.action == "skip":
            self.counts["skipped"] += 1
            return False
        if step.action == "run":
            self._to_run += 1
            self._bytes += step.bytes
        return True

    @property
    def steps(self) -> int:
        """All of them, those that are skipped or refused too."""
        return max(self._all, self._seen)

    @property
    def files(self) -> int:
        """How many are to be run, if the rest is like what was planned so far."""
        return self._like(self._to_run)

    @property
    def bytes(self) -> int:
        return self._like(self._bytes)

    def _like(self, so_far: int) -> int:
        return round(so_far * self.steps / self._seen) if self._seen else 0
