"""A text file of somebody else: a real file, no longer than it may be, in UTF-8."""

import os
import stat
from pathlib import Path

from ..errors import ConfigError


def read(path: str | os.PathLike[str], most_bytes: int) -> str:
    """Its text, without a byte order mark. Raises ConfigError naming the file and what was expected."""
    path = Path(path)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, a device never ends
            raise ConfigError(f"{path} is no file")
        if about.st_size > most_bytes:
            raise ConfigError(f"{path} has {size(about.st_size)}; at most {size(most_bytes)} are read")
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}); save it as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{path!s:.300} cannot be read: {why}") from None


def size(count: int) -> str:
    """Bytes for people: `17 kB`, `40.0 GB`.

    >>> size(40_000_000_000)
    '40.0 GB'
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count // 1000} kB" if count >= 1000 else f"{count} bytes"
