"""Rows of a report that the system in question made worse, for the filter `regressions only`."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def baselines(names: Sequence[str], tested: str, aside: Sequence[str] = ()) -> list[tuple[int, str]]:
    """What `tested` can be compared with, each with its number among the runs."""
    return [(at, name) for at, name in enumerate(names) if name not in (tested, *aside)]


def worse_than(
    row: Mapping[str, Item],
    names: Sequence[str],
    tested: str,
    worse: Callable[[Item, Item], bool],
) -> str:
    """The numbers of the runs that did better than `tested` at this row, such as `0 2`.

    `worse(was, now)` says whether the second is worse than the first; a run without the row is not compared.
    """
    if tested not in row:
        return ""
    return " ".join(
        str(at)
        for at, name in enumerate(names)
        if name != tested and name in row and worse(row[name], row[tested])
    )
