"""A prefix of an object store that fsspec reaches (s3://, gs://, hf://, ...).

An object appears whole or not at all, as one `put` makes it. What fails for a moment is tried again, and
counted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import ConfigError
from .address import PACKAGES, Found
from .ranges import Ranges

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
_AT_ONCE = 128  # objects asked for together
T = TypeVar("T")
_retried: deque[int] = deque()


class Objects:
    """A prefix of an object store."""

    def __init__(self, root: str):
        self.root, self.retries = root.rstrip("/"), 0
        self._files, self._prefix = filesystem(self.root)

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
        return Ranges(self, name)  # type: ignore[return-value]

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


def retried() -> int:
    """How many requests of this process were made again since this was last asked."""
    count = len(_retried)
    for _ in range(count):
        _retried.popleft()
    return count


def filesystem(root: str) -> tuple[Any, str]:
    """fsspec's, and the path in it. Raises ConfigError where a package for the scheme is missing."""
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
