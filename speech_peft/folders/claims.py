"""Which input is whose, where several processes work on one output folder: a file for each that is under way.

A claim is a second name (a hard link) of a file that holds the mark of its process: one process alone can
make it, whole, on shared file systems too. Where there are no links it is a file of its own, made
exclusively. It is touched while its process lives and ends with the work. It is taken over at once when its
process is known to be gone (same host), and after ten minutes without a touch otherwise. Should a process
come back after that, an input is done twice, and its outputs are replaced whole by the same.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import owner
from ..files.atomic import temporary_beside

_TOUCH_SECONDS = 60.0
_GONE_SECONDS = 600.0
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})


class Claims:
    """The claims of one run of one process.

    >>> with Claims(out / ".speech_peft" / "claims").kept() as claims:      # doctest: +SKIP
    ...     if claims.take("a.wav"):
    ...         ...
    """

    def __init__(self, folder: Path, command: str = ""):
        self.folder, self.command = folder, command
        self._mark = f"{owner.mark()} {os.urandom(4).hex()}"  # two runs of one process are two
        self._own: Path | None = None
        """What claims are links of."""
        self._held: set[Path] = set()
        self._ended = threading.Event()

    @contextmanager
    def kept(self) -> Iterator["Claims"]:
        """Keep them alive while the block lasts; what is still held then is released."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own = temporary_beside(self.folder / "holder")
        self._own.write_text(self._mark)
        keeper = threading.Thread(target=self._touch, daemon=True)
        keeper.start()
        try:
            yield self
        finally:
            self._ended.set()
            keeper.join()
            for path in list(self._held):
                self._release(path)
            self._own.unlink(missing_ok=True)

    def take(self, id: str) -> bool:
        """Whether the input is this process's to do. Raises OSError where no claim can be written."""
        path = self._path(id)
        for _ in range(2):
            made = self._made(path)
            holder = _read(path)
            if made or holder == self._mark:  # a server may say no to what it has done
                self._held.add(path)
                return True
            if holder is not None:
                if not self._left(path, holder):
                    return False
                self._clear(path, holder)
        return False

    def _made(self, path: Path) -> bool:
        assert self._own is not None, "claims are taken inside kept()"
        try:
            os.link(self._own, path)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        with suppress(FileExistsError), open(path, "x") as file:
            file.write(self._mark)
            return True
        return False

    def release(self, id: str) -> None:
        """The input is done, and the ledger says so."""
        self._release(self._path(id))

    def others(self) -> bool:
        """Whether another process may be at work here."""
        return next(self._living(), None) is not None

    def alive(self) -> int:
        """How many inputs are under way, in processes that may live."""
        return sum(1 for path in self._living() if not path.name.startswith("."))

    def _living(self) -> Iterator[Path]:
        with suppress(OSError):
            for path in self.folder.iterdir():
                if not owner.gone((_read(path) or "").partition(" ")[0]):
                    yield path

    def _path(self, id: str) -> Path:
        name = f"{self.command}\0{id}".encode("utf-8", "backslashreplace")
        return self.folder / hashlib.sha256(name).hexdigest()[:32]

    def _release(self, path: Path) -> None:
        self._held.discard(path)
        with suppress(OSError):
            if _read(path) == self._mark:  # else it was taken over
                path.unlink()

    def _left(self, path: Path, holder: str) -> bool:
        mark = holder.partition(" ")[0]
        if owner.gone(mark):
            return True
        if owner.here(mark):
            return False
        return self._now() - _touched(path) > _GONE_SECONDS

    def _now(self) -> float:
        """By the clock of the file system, as those of two hosts may differ."""
        probe = temporary_beside(self.folder / "clock")
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _clear(self, path: Path, holder: str) -> None:
        """Take a left claim away. Of several who try one succeeds; a new claim that was hit is put back."""
        aside = temporary_beside(path)
        try:
            os.replace(path, aside)
            if _read(aside) != holder:
                os.link(aside, path)
        except OSError:
            pass  # another was faster
        finally:
            aside.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._ended.wait(_TOUCH_SECONDS):
            for path in (self._own, *list(self._held)):
                with suppress(OSError):
                    os.utime(path)  # type: ignore[arg-type]


def _read(path: Path) -> str | None:
    """Who holds a claim; None where it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")  # gone meanwhile: not ours to clear
