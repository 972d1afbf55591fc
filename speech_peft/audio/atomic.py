"""A file appears under its final name only when it is complete.

A run that is killed leaves at most a hidden `.NAME.tmp-PID-N` beside it, which `sweep` removes once that
process is gone. The temporary file lies in the final folder: a rename is atomic on one file system only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_MARK = ".tmp-"
_serial = count()  # next() is atomic: two threads never share a temporary name


@contextmanager
def atomic_path(final: str | os.PathLike[str]) -> Iterator[Path]:
    """Write to the path this yields; it becomes `final` when the block ends well, and vanishes when not.

    >>> with atomic_path("out/scores.json") as path:      # doctest: +SKIP
    ...     path.write_text("{}")
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    try:
        yield temporary
        finish(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(final: str | os.PathLike[str]) -> Path:
    """A hidden name of this process in the same folder, which `sweep` knows; nothing is made yet."""
    final = Path(final)
    # Only the start of the name: a final name may already be as long as the file system allows.
    return final.with_name(f".{final.name[:40]}{_MARK}{os.getpid()}-{next(_serial)}")


def finish(temporary: Path, final: Path) -> None:
    """Give what was written whole under a temporary name its own; both lie on one file system."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())  # else a power cut may leave the new name over empty blocks
    os.replace(temporary, final)


def write_bytes(final: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file's content in one step."""
    with atomic_path(final) as path:
        path.write_bytes(content)


def write_text(final: str | os.PathLike[str], text: str) -> None:
    """Replace the file's content in one step, as UTF-8 with `\\n` line ends."""
    write_bytes(final, text.encode())


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed runs left in `folder` and below; files of live processes stay."""
    removed = []
    for path in Path(folder).rglob(f".*{_MARK}*"):
        process = path.name.rpartition(_MARK)[2].partition("-")[0]
        if path.is_file() and process.isdigit() and not _alive(int(process)):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # it is there and belongs to someone else
    return True
