"""results.jsonl: a line for each finished cell, from one process or several, whole whatever is killed.

Processes share a folder: a cell is claimed by a lock of its own, which goes with the process that holds it.
Where the file system has no such locks, one process at a time may run.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..files import json_text

Row = dict[str, Any]


class Results:
    """The lines of a sweep's folder."""

    def __init__(self, out: Path):
        self.path, self._claims = out / "results.jsonl", out / ".claims"
        self._claims.mkdir(parents=True, exist_ok=True)
        self._before = Counter(row["key"] for row in self._lines())

    def rows(self) -> dict[str, Row]:
        """The last line of each cell, by its key."""
        return {row["key"]: row for row in self._lines()}

    def settled(self, key: str) -> bool:
        """Whether a cell needs no run: it was measured, or it has failed since this process began."""
        own = [row for row in self._lines() if row["key"] == key]
        return bool(own) and (own[-1]["error"] is None or len(own) > self._before[key])

    def add(self, row: Row) -> None:
        """Append a line."""
        with _held(self._claims / "results.lock", wait=True), self.path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            torn = end > 0 and (file.seek(end - 1), file.read(1))[1] != b"\n"
            line = json_text.write(row, ensure_ascii=False).encode() + b"\n"
            file.write(b"\n" + line if torn else line)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether the cell is this process's to run, for as long as the block lasts."""
        with _held(self._claims / f"{key}.lock", wait=False) as mine:
            yield mine

    def _lines(self) -> Iterator[Row]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        rows = (json_text.logged(line) for line in content.split(b"\n"))
        yield from (row for row in rows if row and isinstance(row.get("key"), str) and "error" in row)


@contextmanager
def _held(path: Path, wait: bool) -> Iterator[bool]:
    """Whether the lock is ours while the block lasts; its file stays: a removed one could be held twice."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    except NotImplementedError:
        yield True
        return
    try:
        yield True
    finally:
        lock.release()
