"""Where audio and shards lie: a folder of this machine, or what fsspec reaches (s3://, gs://, hf://, ...)."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from ..errors import ConfigError
from .stores.address import Found as Found
from .stores.address import PathLike as PathLike
from .stores.address import address as address
from .stores.address import is_remote as is_remote
from .stores.folder import Folder as Folder
from .stores.objects import Objects as Objects
from .stores.objects import filesystem
from .stores.objects import retried as retried


@runtime_checkable
class Store(Protocol):
    """A folder, here or far. Names are below it; FileNotFoundError for what is not there, OSError beyond."""

    root: str
    retries: int
    """Attempts that failed and were made again."""

    def found(self, folder: str) -> list[Found]: ...
    def size(self, name: str) -> int: ...
    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes: ...
    def read_all(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]: ...
    def opened(self, name: str) -> IO[bytes]: ...
    def write(self, name: str, content: bytes) -> None: ...
    def put(self, name: str, file: Path) -> None: ...
    def create(self, name: str, content: bytes) -> bool: ...
    def remove(self, name: str) -> None: ...


def at(folder: PathLike) -> Store:
    """The store of a folder. Raises ConfigError where a package for its scheme is missing."""
    return Objects(address(folder)) if is_remote(folder) else Folder(Path(folder))


def of_file(path: PathLike) -> tuple[Store, str]:
    """The store that holds a file or object, and its name there."""
    folder, _, name = address(path).rpartition("/")
    return at(folder or ("/" if os.fspath(path).startswith("/") else ".")), name


def matching(pattern: str) -> list[str]:
    """The addresses that a pattern stands for, in order. Raises ConfigError where there is none."""
    pattern = address(pattern)
    scheme = pattern.partition("://")[0]
    files, path = filesystem(pattern)
    found = [f"{scheme}://{name}" for name in sorted(files.glob(path))]
    if not found:
        raise ConfigError(f"{pattern}: there is no such file, folder or pattern")
    return found
