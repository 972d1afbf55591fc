"""Where audio and shards lie: a folder of this machine, or what fsspec reaches (s3://, gs://, hf://, ...).

pathlib makes `s3:/bucket/key` of `s3://bucket/key`, and such a path is understood everywhere: a manifest, a
row or an option may name an object where it may name a file. An object appears whole or not at all, as one
`put` makes it; a file does by a rename. What fails for a moment is tried again, and counted.
"""

import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, runtime_checkable

from ..errors import ConfigError
from ..files.atomic import atomic_path, write_bytes

PathLike = str | os.PathLike[str]
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""What fsspec needs for a scheme; others come with what is installed anyway."""
SCHEMES = (*PACKAGES, "hf", "memory", "http", "https")
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(.+)", re.DOTALL)
_ATTEMPTS, _PAUSE_SECONDS, _LONGEST_PAUSE = 8, 0.05, 5.0
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""What trying again does not mend."""
# One attempt each, as those that the client makes by itself are counted by nobody.
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"retries": {"total_max_attempts": 1}}}}
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What lies in a store, by its name below the root."""

    name: str
    bytes: int
    modified: float
    """Seconds since 1970 by the store's clock; 0.0 where it does not say."""


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


def is_remote(path: PathLike) -> bool:
    """Whether it names an object of a store, with one slash behind the scheme or two."""
    return _ADDRESS.fullmatch(os.fspath(path)) is not None


def address(path: PathLike) -> str:
    """As fsspec writes it; a path of this machine as it is.

    >>> address(Path("s3://bucket/clips/a.wav"))
    's3://bucket/clips/a.wav'
    """
    match = _ADDRESS.fullmatch(os.fspath(path))
    return os.fspath(path) if match is None else f"{match[1]}://{match[2]}"


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
    files, path = _filesystem(pattern)
    found = [f"{scheme}://{name}" for name in sorted(files.glob(path))]
    if not found:
        raise ConfigError(f"{pattern}: there is no such file, folder or pattern")
    return found


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


class Objects:
    """A prefix of an object store."""

    def __init__(self, root: str):
        self.root, self.retries = root.rstrip("/"), 0
        self._files, self._prefix = _filesystem(self.root)

    def found(self, folder: str) -> list[Found]:
        """The objects right below a prefix; none where there are none."""
        prefix = f"{folder}/" if folder else ""
        try:
            entries = self._tried(lambda: self._files.ls(self._path(folder), detail=True, refresh=True))
        except FileNotFoundError:
            return []
        return sorted(
            (
                Found(f"{prefix}{one['name'].rpartition('/')[2]}", int(one["size"] or 0), _modified(one))
                for one in entries
                if one["type"] == "file"
            ),
            key=lambda one: one.name,
        )

    def size(self, name: str) -> int:
        self._files.invalidate_cache()
        return int(self._tried(lambda: self._files.info(self._path(name)))["size"])

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        if not begin and end is None:
            return self._tried(lambda: self._files.cat_file(self._path(name)))
        return self._tried(lambda: self._files.cat_file(self._path(name), start=begin, end=end))

    def read_all(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Many at a time; those of a part that fails are asked for one by one."""
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            paths = [self._path(name) for name in some]
            answers = self._files.cat(paths, on_error="return") if len(paths) > 1 else {}
            for name, path in zip(some, paths, strict=True):
                answer = answers.get(path)
                yield name, answer if isinstance(answer, bytes) else self.read(name)

    def opened(self, name: str) -> IO[bytes]:
        return _Ranges(self, name)  # type: ignore[return-value]

    def write(self, name: str, content: bytes) -> None:
        self._tried(lambda: self._files.pipe_file(self._path(name), content))

    def put(self, name: str, file: Path) -> None:
        self._tried(lambda: self._files.put_file(str(file), self._path(name)))

    def create(self, name: str, content: bytes) -> bool:
        """Whether this call made it, by a conditional put where the store has one."""
        try:
            self._tried(lambda: self._files.pipe_file(self._path(name), content, mode="create"))
        except FileExistsError:
            with suppress(FileNotFoundError):  # whose it was may have given it back since
                return self.read(name) == content  # an answer may be lost of what was done
            return False
        except (NotImplementedError, TypeError, ValueError):
            try:
                self.size(name)
            except FileNotFoundError:
                self.write(name, content)
                return self.read(name) == content
            return False
        return True

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._tried(lambda: self._files.rm_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}" if name else self._prefix

    def _tried(self, work: Callable[[], T]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                return work()
            except _FINAL:
                raise
            except Exception as error:
                if attempt == _ATTEMPTS - 1:
                    raise OSError(f"{self.root}: failed {_ATTEMPTS} times, last with: {error}") from error
                self.retries += 1
                _retried.append(1)
                time.sleep(min(_LONGEST_PAUSE, _PAUSE_SECONDS * 2**attempt))
        raise AssertionError


_retried: deque[int] = deque()


def retried() -> int:
    """How many requests of this process were made again since this was last asked."""
    count = len(_retried)
    for _ in range(count):
        _retried.popleft()
    return count


_AT_ONCE = 128  # objects asked for together


class _Ranges:
    """An object as a file that can be read at any place, by blocks of it."""

    _BLOCK = 1 << 20

    def __init__(self, store: Objects, name: str):
        self._store, self._name, self._at = store, name, 0
        self._size = store.size(name)
        self._begin, self._held = 0, b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = 0) -> int:
        self._at = max(0, (0, self._at, self._size)[whence] + place)
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        if not (self._begin <= self._at and end <= self._begin + len(self._held)):
            last = min(self._size, max(end, self._at + self._BLOCK))
            self._begin, self._held = self._at, self._store.read(self._name, self._at, last)
        found = self._held[self._at - self._begin : end - self._begin]
        self._at += len(found)
        return found

    def readline(self, size: int = -1) -> bytes:
        line = bytearray()
        while block := self.read(8192 if size < 0 else min(8192, size - len(line))):
            end = block.find(b"\n") + 1
            line += block[:end] if end else block
            if end:
                self._at -= len(block) - end
                break
        return bytes(line)

    def close(self) -> None:
        self._held = b""

    def __enter__(self) -> "_Ranges":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _filesystem(root: str) -> tuple[Any, str]:
    scheme = root.partition(":")[0]
    try:
        fsspec = import_module("fsspec.core")
        files, prefix = fsspec.url_to_fs(root, **_options(scheme))
    except (ImportError, ValueError) as error:
        package = PACKAGES.get(scheme, "fsspec")
        raise ConfigError(f"{root}: {scheme}:// needs the package {package}: {error}") from error
    if scheme == "s3":
        files.retries = 1
    return files, prefix.rstrip("/")


def _options(scheme: str) -> dict[str, Any]:
    """Ours below those of the user, who gives them to fsspec by a file or by FSSPEC_... variables."""
    own = _OPTIONS.get(scheme, {})
    given = import_module("fsspec.config").conf.get(scheme, {})
    return {name: value for name, value in own.items() if name not in given}


def _modified(entry: dict[str, Any]) -> float:
    when: Any = (
        entry.get("LastModified") or entry.get("mtime") or entry.get("created") or entry.get("updated")
    )
    return float(when.timestamp()) if hasattr(when, "timestamp") else 0.0
