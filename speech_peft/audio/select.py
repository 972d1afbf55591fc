"""Rows by what their columns say: `{fold: [1, 2]}`, `{speaker: theo, lang: [en, fr]}`."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, did_you_mean
from .io import PathLike
from .row import Row

_FIELDS = ("id", "text", "label", "speaker", "lang")


def where(rows: Sequence[Row], wanted: Mapping[str, Any], path: PathLike) -> list[Row]:
    """The rows whose every column of `wanted` holds one of its values; `path` is where they were read from.

    Values are compared as text: a table's `1` and JSON's 1 are the same fold. A column that no row has, and
    values that no row holds together, are a ConfigError: a misspelt split is never an empty one.
    """
    found = list(rows)
    for column, values in wanted.items():
        options = {str(value) for value in (values if isinstance(values, list | tuple | set) else [values])}
        held = {str(cell) for row in rows if (cell := _cell(row, column)) is not None}
        if not held:
            columns = {name for row in rows for name in row.extra} | {
                name for name in _FIELDS if any(getattr(row, name) is not None for row in rows)
            }
            raise ConfigError(f"{path}: no row has a column {column!r}. {did_you_mean(column, columns)}")
        if missing := sorted(options - held):
            shown = ", ".join(sorted(held)[:20]) + (", ..." if len(held) > 20 else "")
            raise ConfigError(f"{path}: no row has {column} {', '.join(missing)}; it holds {shown}")
        found = [row for row in found if str(_cell(row, column)) in options]
    if not found:
        raise ConfigError(f"{path}: no row has {wanted} at once")
    return found


def _cell(row: Row, column: str) -> Any:
    return getattr(row, column) if column in _FIELDS else row.extra.get(column)
