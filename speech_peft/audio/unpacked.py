"""Rows whose sound comes inside them, as Hugging Face's data sets have it: each clip a file of the cache.

A file is what decoders, loaders of other processes, resumed runs and reports can all open again. It is named
by what is in it, so that the same data set is written once. Cells that only name a file are left where they
are.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..files.atomic import atomic_path
from ..files.cache import cache_dir
from . import io
from .given import Packed, Wave, one
from .rows.columns import COLUMNS, Columns
from .rows.row import Row

Record = Mapping[str, Any]
Classes = Mapping[str, Sequence[str]]
"""Column -> the names that its whole numbers stand for."""


def rows_of(records: Iterable[Record], where: str, classes: Classes | None = None) -> list[Row]:
    """A row for each record: columns are recognised by their names, and sound becomes a file.

    `where` names the data set in errors; `classes` may grow while records come. Raises ConfigError for a
    record that is no row, or whose sound is none.
    """
    return list(_rows(records, where, {} if classes is None else classes))


def _rows(records: Iterable[Record], where: str, classes: Classes) -> Iterator[Row]:
    columns = Columns(Path.cwd(), {})
    for number, record in enumerate(records):
        place = f"{where}[{number}]"
        cells = {name: _named(cell, classes.get(name)) for name, cell in record.items()}
        for field in ("audio", "target_audio"):
            name = next((one for one in COLUMNS[field] if one in cells), None)
            if name is not None and cells[name] is not None:
                cells[name] = str(_file(cells[name], f"{place}.{name}"))
        row, _ = columns.row(place, {"id": f"{number:06}", **_plain(cells)})
        yield row


def _named(cell: Any, names: Sequence[str] | None) -> Any:
    """The name of a class that is written as its number; -1 is what data sets write for none."""
    if names is None or not isinstance(cell, int):
        return cell
    return names[cell] if 0 <= cell < len(names) else None


def _plain(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Without what no manifest holds: arrays, dates, nested tables."""
    return {name: cell for name, cell in cells.items() if cell is None or isinstance(cell, str | int | float)}


def _file(cell: Any, where: str) -> Path:
    """Where the sound of a cell lies."""
    try:
        sound = Packed(cell) if isinstance(cell, bytes) else one(cell)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if isinstance(sound, Wave):
        return _written(sound)
    return _kept(sound) if isinstance(sound, Packed) else sound.absolute()


def _kept(sound: Packed) -> Path:
    file = _place(sound.content, Path(sound.name).suffix)
    if not file.exists():
        with atomic_path(file) as half:
            half.write_bytes(sound.content)
    return file


def _written(sound: Wave) -> Path:
    samples = np.ascontiguousarray(sound.samples)
    file = _place(samples.tobytes(), ".wav", f"{sound.rate}|{samples.shape}")
    if not file.exists():
        io.save(file, samples, sound.rate, "FLOAT")  # as it came, whatever is louder than full scale
    return file


def _place(content: bytes, suffix: str, about: str = "") -> Path:
    digest = hashlib.blake2b(content, digest_size=16)
    digest.update(about.encode())
    name = digest.hexdigest()
    folder = cache_dir() / "clips" / name[:2]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}{suffix}"
