"""Plain values: what JSON can hold and every reader of it understands.

Text, whole numbers, finite numbers, true, false, nothing, lists of these and mappings from text to these (in
YAML also from whole numbers: `folds: {1: ...}`); not deeper than anything we write.
"""

import math
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError

DEPTH = 40
"""Of lists and mappings inside each other; ours are at most eight deep."""
_WHOLE = 2**128
"""Larger whole numbers stand for nothing; 10^30 is what tokenizers call endless."""


def check(value: Any, where: str) -> Any:
    """`value` itself; raises ConfigError, beginning with `where`, unless it is plain."""
    pending = [(value, 0)]
    while pending:
        here, depth = pending.pop()
        if isinstance(here, dict):
            for key in here:
                if not isinstance(key, str | int) or isinstance(key, bool):
                    raise ConfigError(f'{where}: the key {key!r} is no text; write it in quotes: "{key}"')
            pending += [(item, depth + 1) for pair in here.items() for item in pair if not _fine(item)]
        elif isinstance(here, list):
            # Of a million equal numbers one is looked at.
            pending += [(item, depth + 1) for item in _different(here) if not _fine(item)]
        elif problem := _problem(here):
            raise ConfigError(f"{where}: {problem}")
        if depth >= DEPTH and isinstance(here, dict | list):
            raise ConfigError(f"{where}: more than {DEPTH} lists and mappings lie inside each other")
    return value


def _different(items: list[Any]) -> list[Any]:
    """The items that hold others, and one of each plain value."""
    plain = {item for item in items if not isinstance(item, dict | list | set | bytearray)}
    return [*plain, *(item for item in items if isinstance(item, dict | list | set | bytearray))]


def _fine(leaf: Any) -> bool:
    """Whether nothing is wrong with one, as of nearly all can be said at once."""
    kind = type(leaf)
    if kind is str:
        return leaf.isascii() and "\0" not in leaf
    if kind is float:
        return math.isfinite(leaf)
    return leaf is None or kind is bool or (kind is int and abs(leaf) < _WHOLE)


def _problem(leaf: Any) -> str | None:
    """What is wrong with one that holds no others."""
    if leaf is None or isinstance(leaf, bool):
        return None
    if isinstance(leaf, str):
        if "\0" in leaf:
            return f"{leaf[:60]!r} has a character zero in it, which no name or path may have"
        # Surrogates without their other half are no characters: they could not be written again.
        return None if leaf.isascii() or _encodes(leaf) else f"{leaf[:60]!r} is no valid Unicode text"
    if isinstance(leaf, int):
        return f"a whole number of {leaf.bit_length()} bits is too large" if abs(leaf) >= _WHOLE else None
    if isinstance(leaf, float):
        return None if math.isfinite(leaf) else f"{leaf} is no finite number"
    return f"{str(leaf)[:60]!r} is a {type(leaf).__name__}; expected text or a number (in quotes it is text)"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def finite(value: Any) -> Any:
    """A copy in which numbers that JSON cannot hold, NaN and infinities, are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
