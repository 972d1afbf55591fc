"""One figure and its limit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """One figure and its limit."""

    figure: str
    value: float | None
    limit: float
    at_most: bool = True

    @property
    def passed(self) -> bool:
        """A figure that is absent does not pass."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        shown = "n/a" if self.value is None else f"{self.value:.2f}"
        sense = "<=" if self.at_most else ">="
        return f"{'ok  ' if self.passed else 'FAIL'} {self.figure} {shown}, wanted {sense} {self.limit:.2f}"
