"""JSON that others wrote, within limits; JSON that we write, which every reader accepts.

Python's own reader takes NaN, which is no JSON, keeps the last of two equal keys without a word, and ends in
a RecursionError where brackets nest; its writer writes NaN. So no other module reads by it.
"""

import json
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import ConfigError
from . import text as text_file
from .plain_values import check, finite

MOST_BYTES = 4_000_000
"""Of a whole file; an adapter.json has some kilobytes, with thousands of labels a hundred."""


def read(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> Any:
    """The value that a file holds; raises ConfigError naming the file and what is wrong in it."""
    return parse(text_file.read(path, most_bytes), os.fspath(path))


def read_object(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The same for a file that must hold an object, `{...}`."""
    value = read(path, most_bytes)
    if not isinstance(value, dict):
        raise ConfigError(f"{os.fspath(path)}: expected an object, {{...}}, found {type(value).__name__}")
    return value


def parse(text: str, where: str) -> Any:
    """The value of a JSON text; raises ConfigError that begins with `where`."""
    try:
        value = _STRICT(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise ConfigError(f"{where}: not JSON: {error.msg} ({place})") from None
    except RecursionError:
        raise ConfigError(f"{where}: not JSON that can be read: brackets are nested too deep") from None
    except ValueError as error:  # NaN, a key twice, and numbers of more digits than Python converts
        raise ConfigError(f"{where}: not JSON: {error}") from None
    return check(value, where)


def cells(line: str) -> Any:
    """A row of a table that others wrote, which has NaN in its empty cells: whoever wants a cell looks at it.

    Raises ValueError, without a place.
    """
    try:
        return _CELLS(line)
    except RecursionError:
        raise ValueError("nested too deep") from None


def logged(line: bytes) -> dict[str, Any] | None:
    """What a line of a log of ours says; None for half of one, of a run that was killed, or for none of ours.

    Names that are no UTF-8 stand in it as the halves of characters that Python makes of them.
    """
    try:
        value = _LOGGED(line.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the key {next(name for name in names if names.count(name) > 1)!r:.60} stands twice"
        )
    return found


_STRICT = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once).decode
_LOGGED = json.JSONDecoder(parse_constant=_refuse).decode
_CELLS = json.JSONDecoder().decode


def write(value: Any, **settings: Any) -> str:
    """`value` as JSON; numbers that are not finite become null. `settings` are those of `json.dumps`."""
    try:
        return json.dumps(value, allow_nan=False, **settings)
    except ValueError:  # rare, so that the copy is made only then
        return json.dumps(finite(value), allow_nan=False, **settings)
