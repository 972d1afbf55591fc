"""What recordings are told apart by: the columns that scores are sliced by and that the bootstrap draws."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..errors import ConfigError, did_you_mean
from . import bootstrap

MIN_GROUPS = 10  # fewer speakers than this do not carry an interval; recordings are drawn then
_OWN = ("id", "lang", "speaker")
_DURATIONS = ((2, "up to 2 s"), (5, "2 to 5 s"), (10, "5 to 10 s"), (30, "10 to 30 s"))
_LONGER = f"over {_DURATIONS[-1][0]} s"
_ORDER = [*(label for _, label in _DURATIONS), _LONGER]


@runtime_checkable
class Recording(Protocol):
    """What predictions of every task have."""

    @property
    def id(self) -> str: ...
    @property
    def audio_filepath(self) -> str: ...
    @property
    def duration(self) -> float: ...
    @property
    def lang(self) -> str: ...
    @property
    def speaker(self) -> str: ...
    @property
    def columns(self) -> Mapping[str, Any]: ...


Some = TypeVar("Some", bound=Recording)


@dataclass(frozen=True)
class Options:
    """How scores are made; written beside them."""

    group_by: str = "auto"
    """What the bootstrap draws: a column, `speaker`, `audio`, or `auto`: the coarsest with enough groups."""
    slice_by: tuple[str, ...] = ("lang", "duration")
    min_n: int = 20
    """A slice with fewer utterances gets no rate."""
    resamples: int = bootstrap.RESAMPLES
    level: float = bootstrap.LEVEL
    seed: int = 0


def known_columns(columns: Collection[str], wanted: Iterable[str]) -> None:
    """Refuse a column that no row has."""
    available = {*columns, "lang", "speaker", "audio", "duration", "id"}
    for column in wanted:
        if column != "auto" and column not in available:
            raise ConfigError(f"no row has a column {column!r}. {did_you_mean(column, available)}")


def value_of(recording: Recording, column: str) -> str:
    """The cell of a manifest column, as text; durations are sorted into buckets."""
    if column == "duration":
        return next((label for limit, label in _DURATIONS if recording.duration <= limit), _LONGER)
    if column == "audio":
        return recording.audio_filepath
    value = getattr(recording, column) if column in _OWN else recording.columns.get(column)
    return "" if value is None else str(value)


def grouping(recordings: Sequence[Recording], wanted: str = "auto", more: Sequence[str] = ()) -> str:
    """The column whose values the bootstrap draws; `more` are tried after the speaker."""
    if wanted != "auto":
        return wanted
    for column in ("speaker", *more, "audio"):
        values = [value_of(recording, column) for recording in recordings]
        if all(values) and len(set(values)) >= MIN_GROUPS:
            return column
    return "id"


def sliced(recordings: Sequence[Some], column: str) -> dict[str, list[Some]]:
    """The recordings of each value, in order; numbers with many values by quarters."""
    label = _binner([recording.columns.get(column) for recording in recordings])
    groups: dict[str, list[Some]] = defaultdict(list)
    for recording in recordings:
        name = label(recording.columns.get(column)) or value_of(recording, column) or "(none)"
        groups[name].append(recording)
    return {name: groups[name] for name in in_order(groups)}


def in_order(names: Iterable[str]) -> list[str]:
    """The names of slices as a table has them: durations from short to long, others by the alphabet."""
    return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def _binner(values: list[Any]) -> Callable[[Any], str]:
    """Names the quarter of a numeric column with many values (an SNR, say); nothing for other columns."""
    if not all(isinstance(value, int | float) for value in values) or len(set(values)) <= 10:
        return lambda value: ""
    edges = quantiles(values, n=4)

    def quarter(value: float) -> str:
        at = sum(value > edge for edge in edges)
        low, high = (min(values), *edges)[at], (*edges, max(values))[at]
        return f"quarter {at + 1}: {low:.3g} to {high:.3g}"

    return quarter
