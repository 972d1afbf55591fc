"""A folder as a store: a file appears by a rename."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ...files.atomic import atomic_path, write_bytes
from .address import Found


class Folder:
    """A folder of this machine, or of a file system that it has mounted."""

    retries = 0

    def __init__(self, folder: Path):
        self.folder, self.root = folder, str(folder)

    def found(self, folder: str) -> list[Found]:
        """The files right in a folder; none where there is no such folder."""
        try:
            with os.scandir(self.folder / folder) as entries:
                files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []
        prefix = f"{folder}/" if folder else ""
        return sorted(
            (Found(f"{prefix}{name}", stat.st_size, stat.st_mtime) for name, stat in files),
            key=lambda one: one.name,
        )

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        with open(self.folder / name, "rb") as file:
            file.seek(begin)
            return file.read(-1 if end is None else max(0, end - begin))

    def read_all(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        return ((name, self.read(name)) for name in names)

    def opened(self, name: str) -> IO[bytes]:
        return open(self.folder / name, "rb")

    def write(self, name: str, content: bytes) -> None:
        write_bytes(self.folder / name, content)

    def put(self, name: str, file: Path) -> None:
        with atomic_path(self.folder / name) as path:
            shutil.copyfile(file, path)

    def create(self, name: str, content: bytes) -> bool:
        """Whether this call made it: of several that try at once, one does."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
