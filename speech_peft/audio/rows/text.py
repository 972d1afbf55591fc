"""Text files as manifests are: UTF-8, compressed where the name ends in `.gz`, errors with the line."""

import gzip
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from ...errors import ConfigError


def opened(path: Path) -> TextIOWrapper:
    """For reading; a byte order mark is left out, and line ends stay as they are."""
    reader = gzip.open if path.suffix == ".gz" else open
    return reader(path, "rt", encoding="utf-8-sig", newline="")  # type: ignore[return-value]


def created(path: Path, gz: bool) -> TextIOWrapper:
    """For writing; the name of a temporary file does not tell whether it is to be compressed."""
    return gzip.open(path, "wt", encoding="utf-8") if gz else open(path, "w", encoding="utf-8")  # type: ignore[return-value]


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank; an undecodable one is named."""
    number = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise ConfigError(f"{path}:{number + 1}: cannot be read as UTF-8 text ({error})") from error
