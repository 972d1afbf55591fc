"""One utterance of a manifest, and the cells that every form of manifest writes alike."""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..store import is_remote


@dataclass(frozen=True)
class Row:
    """One utterance: where its samples are, and what is known about them."""

    id: str
    audio: Path
    start: float = 0.0  # seconds into `audio`
    duration: float | None = None  # seconds; None: to the end
    text: str | None = None
    label: str | None = None
    speaker: str | None = None
    lang: str | None = None
    target_audio: Path | None = None  # the clean recording of a noisy one
    others: tuple[Path, ...] = ()  # the same, heard by other microphones that have files of their own
    extra: Mapping[str, Any] = field(default_factory=dict)


def seconds(where: str, name: str, cell: Any) -> float:
    """A number of seconds, or the error of the place `where` that holds it."""
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0 and (value > 0 or name == "start")):
        raise ConfigError(
            f"{where}: {name} is {shown(cell)}; expected seconds, {'>= 0' if name == 'start' else '> 0'}"
        )
    return value


def resolve(folder: Path, name: str) -> Path:
    """A path as a manifest in `folder` writes it; `~nosuchuser` is a name like any other."""
    path = Path(name)
    if is_remote(name):
        return path
    if name.startswith("~"):
        with suppress(RuntimeError):
            path = path.expanduser()
    return folder / path


def path_text(where: str, name: str, cell: Any) -> str:
    """A cell that names a file, if some file can have that name; raises ConfigError."""
    written = word(where, name, cell)
    try:
        raw = os.fsencode(written)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}: {name} is {shown(written)}, which no file can be called ({error.reason})"
        ) from error
    if b"\0" in raw:
        raise ConfigError(f"{where}: {name} is {shown(written)}; a file name holds no NUL")
    return written


def word(where: str, name: str, cell: Any) -> str:
    """A cell that is text; a number is what it spells, but nothing else is, NaN least of all."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        raise ConfigError(f"{where}: {name} is {shown(cell)}; expected text")
    if not math.isfinite(cell):
        raise ConfigError(
            f"{where}: {name} is {cell}, an empty cell of a table written as a number. "
            "Write null, or leave the row out"
        )
    return str(cell)


def sentence(where: str, name: str, cell: Any) -> str:
    """A cell that is text and can be written as UTF-8; raises ConfigError."""
    written = word(where, name, cell)
    try:
        written.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}: {name} is {shown(written)}, half of a character (a lone surrogate); "
            "write the text anew as UTF-8"
        ) from error
    if "\0" in written:
        raise ConfigError(f"{where}: {name} is {shown(written)}; text holds no NUL")
    return written


def shown(cell: Any, most: int = 60) -> str:
    """A cell as an error shows it: escaped, and not by the page."""
    try:
        written = ascii(cell)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        written = f"a {type(cell).__name__}"
    return written if len(written) <= most else f"{written[:most]}... ({len(written)} characters)"
