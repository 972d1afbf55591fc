"""The rows of a manifest, left in their file: a few numbers of each are held, the rest is read on demand."""

import os
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, overload

import numpy as np

from ...errors import ConfigError
from .columns import Columns, suffixed
from .records import Format, opened
from .row import Row

_MOST = 2**63 - 1


class Listing(Sequence[Row]):
    """The rows of one file, in order; a slice of it, and `take`, are listings of the same file.

    Rows are read anew each time: keep one that is used twice. What is wrong in the file is a ConfigError that
    names the line: when the listing is made, or, of one made with `broken="kept"`, when the row is asked for.
    """

    def __init__(
        self, path: Path, form: Format, named: Mapping[str, str] | None = None, broken: str = "refused"
    ):
        self.path, self.form = path, form
        self.columns = Columns(path.parent, named or {})
        with opened(path) as file:
            self._bytes = _Bytes(file)
            self._scan(file, broken)
        self.places = np.arange(len(self._at) - 1)
        """Which of the file's records these rows are."""

    def _scan(self, file: IO[bytes], broken: str) -> None:
        at, lines, lengths, spoken, spots = array("q"), array("i"), array("d"), bytearray(), array("q")
        plain, full = array("q"), array("q")
        self._broken: dict[int, str] = {}
        brief, path = self.columns.brief, self.path
        for begin, number, record, clean in self.form.scan(file):
            try:
                if isinstance(record, ConfigError):
                    raise record
                one = brief(lambda number=number: f"{path}:{number}", record, clean)
            except ConfigError as error:
                if broken == "refused":
                    raise
                self._broken[len(at)] = str(error)
                plain.append(-len(at) - 1)
                full.append(-len(at) - 1)
                lengths.append(np.nan)
                spoken.append(False)
                spots.append(-len(at) - 1)
            else:
                plain.append(hash(one.made) & _MOST)
                full.append(hash(one.full) & _MOST)
                lengths.append(one.seconds)
                spoken.append(one.spoken)
                spots.append(hash(one.spot) & _MOST)
            at.append(begin)
            lines.append(number)
        at.append(os.fstat(file.fileno()).st_size)
        self._at, self._lines = np.frombuffer(at, np.int64), np.frombuffer(lines, np.int32)
        self._lengths, self._spoken = np.frombuffer(lengths), np.frombuffer(spoken, np.bool_)
        self._spots = np.frombuffer(spots, np.int64)
        self._ids(np.frombuffer(plain, np.int64), np.frombuffer(full, np.int64), broken)

    def _ids(self, plain: np.ndarray, full: np.ndarray, broken: str) -> None:
        """Made ids get suffix and start where the path alone does not tell rows apart; no id comes twice."""
        _, which, counts = np.unique(plain, return_inverse=True, return_counts=True)
        self._suffixed = (counts[which] > 1) & (plain != full)
        ids = np.where(self._suffixed, full, plain)
        first, which = np.unique(ids, return_index=True, return_inverse=True)[1:]
        for again in np.flatnonzero(first[which] != np.arange(len(ids))):
            id = self._read(int(again)).id
            earlier = int(self._lines[first[which[again]]])
            message = f"{self.path}:{self._lines[again]}: id {id!r} was already used on line {earlier}"
            if broken == "refused":
                raise ConfigError(message)
            self._broken[int(again)] = message

    # ---- what is known without reading --------------------------------------------------------------------

    @property
    def seconds(self) -> np.ndarray:
        """The length of each row as the manifest gives it; NaN where it does not."""
        return self._lengths[self.places]

    @property
    def spoken(self) -> np.ndarray:
        """Which rows have a text that is not empty."""
        return self._spoken[self.places]

    @property
    def spots(self) -> np.ndarray:
        """A number for recording and start of each row: rows that begin in one place share it."""
        return self._spots[self.places]

    # ---- a sequence ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "Listing": ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return self._row(int(self.places[place]))

    def __iter__(self) -> Iterator[Row]:
        return (self._row(int(record)) for record in self.places)

    def each(self) -> Iterator[Row | str]:
        """Every row, or what is wrong with it."""
        for record in self.places:
            try:
                yield self._row(int(record))
            except ConfigError as error:
                yield str(error)

    def take(self, places: Sequence[int] | np.ndarray) -> "Listing":
        """The rows at these places, in this order."""
        other = object.__new__(Listing)
        other.__dict__.update(self.__dict__)
        other.places = self.places[np.asarray(places, np.intp)]
        return other

    def _row(self, record: int) -> Row:
        if record in self._broken:
            raise ConfigError(self._broken[record])
        return self._read(record)

    def _read(self, record: int) -> Row:
        begin, end = int(self._at[record]), int(self._at[record + 1])
        where = f"{self.path}:{self._lines[record]}"
        row, given = self.columns.row(where, self.form.parse(where, self._bytes.read(begin, end - begin)))
        if self._suffixed[record] and not given:
            row = replace(row, id=suffixed(row))
        return row

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a listing is an open file; send its path, or rows")


class _Bytes:
    """A file that is open as long as somebody has rows of it, whatever happens to its name."""

    def __init__(self, file: IO[bytes]):
        self._number, self._lock = os.dup(file.fileno()), threading.Lock()

    def read(self, begin: int, size: int) -> bytes:
        """Without moving the place in the file: processes that forked share it."""
        if hasattr(os, "pread"):
            return os.pread(self._number, size, begin)
        with self._lock:
            os.lseek(self._number, begin, os.SEEK_SET)
            return os.read(self._number, size)

    def __del__(self) -> None:
        os.close(self._number)


def pick(rows: Sequence[Row], places: Sequence[int] | np.ndarray) -> Sequence[Row]:
    """The rows at these places, in this order; of a listing they stay in the file."""
    return rows.take(places) if isinstance(rows, Listing) else [rows[int(place)] for place in places]


def seconds_of(rows: Sequence[Row]) -> np.ndarray:
    """The length of each row as its manifest gives it; NaN where it does not."""
    if isinstance(rows, Listing):
        return rows.seconds
    return np.array([np.nan if row.duration is None else row.duration for row in rows])


def spoken(rows: Sequence[Row]) -> np.ndarray:
    """Which rows have a text that is not empty."""
    return rows.spoken if isinstance(rows, Listing) else np.array([bool(row.text) for row in rows])


def shared(rows: Sequence[Row], others: Sequence[Row]) -> np.ndarray:
    """The places of those rows that begin where one of the others does, in the same recording."""
    return np.flatnonzero(np.isin(_spots(rows), _spots(others)))


def _spots(rows: Sequence[Row]) -> np.ndarray:
    if isinstance(rows, Listing):
        return rows.spots
    return np.array([hash((os.path.abspath(row.audio), row.start)) & _MOST for row in rows], np.int64)
