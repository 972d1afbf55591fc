"""Rows by what their columns say: `{fold: [1, 2]}`, `{speaker: theo, lang: [en, fr]}`."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError, did_you_mean
from ..io import PathLike
from .listing import pick
from .row import Row

_FIELDS = ("id", "text", "label", "speaker", "lang")


def where(rows: Sequence[Row], wanted: Mapping[str, Any], path: PathLike) -> Sequence[Row]:
    """The rows whose every column of `wanted` holds one of its values; `path` is where they were read from.

    Values are compared as text: a table's `1` and JSON's 1 are the same fold. A column that no row has, and
    values that no row holds together, are a ConfigError: a misspelt split is never an empty one.
    """
    if not wanted and len(rows):
        return rows
    options = {
        column: {str(value) for value in (values if isinstance(values, list | tuple | set) else [values])}
        for column, values in wanted.items()
    }
    places = array("q")
    missing = {column: set(values) for column, values in options.items()}
    for place, row in enumerate(rows):
        cells = {column: str(_cell(row, column)) for column in options}
        for column, cell in cells.items():
            missing[column].discard(cell)
        if all(cell in options[column] for column, cell in cells.items()):
            places.append(place)
    for column, values in missing.items():
        if values:
            raise ConfigError(f"{path}: {_absent(rows, column, sorted(values))}")
    if not places:
        raise ConfigError(f"{path}: no row has {wanted} at once")
    return pick(rows, np.frombuffer(places, np.int64))


def _absent(rows: Sequence[Row], column: str, values: Sequence[str]) -> str:
    """What is wrong with a choice of rows by values that the column does not hold."""
    held = {str(cell) for row in rows if (cell := _cell(row, column)) is not None}
    if held:
        shown = ", ".join(sorted(held)[:20]) + (", ..." if len(held) > 20 else "")
        return f"no row has {column} {', '.join(values)}; it holds {shown}"
    columns = {name for row in rows for name in row.extra}
    columns |= {name for name in _FIELDS if any(getattr(row, name) is not None for row in rows)}
    return f"no row has a column {column!r}. {did_you_mean(column, columns)}"


def _cell(row: Row, column: str) -> Any:
    return getattr(row, column) if column in _FIELDS else row.extra.get(column)
