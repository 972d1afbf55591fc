"""Which shard is whose, where several processes work on one folder: claims, here or in a store.

In a store a lease is an object made by a conditional put, written anew each minute while its process lives.
It is taken over at once when its process is known to be gone (same host), and ten minutes after its last
writing otherwise. Should both be at work then, a shard is made twice, under one name and with the same
content.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..audio.store import Folder, Store
from ..files import owner
from ..folders.claims import Claims
from ..folders.ledger import FOLDER

LEASES = f"{FOLDER}/leases"
_TOUCH_SECONDS, _GONE_SECONDS = 60.0, 600.0


@runtime_checkable
class Keeper(Protocol):
    """What a process takes before it works, and gives back."""

    def take(self, id: str) -> bool: ...
    def release(self, id: str) -> None: ...


@contextmanager
def kept(store: Store, command: str) -> Iterator[Keeper]:
    """The leases of this process; what is still held at the end of the block is given back."""
    if isinstance(store, Folder):
        with Claims(Path(store.root) / FOLDER / "claims", command).kept() as claims:
            yield claims
        return
    leases = Leases(store)
    try:
        yield leases
    finally:
        leases.close()


class Leases:
    """The leases of one process in a store of objects."""

    def __init__(self, store: Store):
        self.store, self._held = store, {}
        self._mark = f"{owner.mark()} {os.urandom(4).hex()}"
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._touch, daemon=True)
        self._keeper.start()

    def take(self, id: str) -> bool:
        name = f"{LEASES}/{id}"
        if self.store.create(name, self._content()):
            self._held[id] = name
            return True
        with suppress(FileNotFoundError):
            mark, _, written = self.store.read(name).decode("utf-8", "replace").rpartition(" ")
            if mark == self._mark:
                return True
            if not _left(mark, written):
                return False
            self.store.remove(name)
        if self.store.create(name, self._content()):
            self._held[id] = name
            return True
        return False

    def release(self, id: str) -> None:
        name = self._held.pop(id, None)
        with suppress(OSError):
            if name and self.store.read(name).decode("utf-8", "replace").startswith(self._mark):
                self.store.remove(name)

    def close(self) -> None:
        self._ended.set()
        self._keeper.join()
        for id in list(self._held):
            self.release(id)

    def _content(self) -> bytes:
        return f"{self._mark} {time.time():.0f}".encode()

    def _touch(self) -> None:
        while not self._ended.wait(_TOUCH_SECONDS):
            for name in list(self._held.values()):
                with suppress(OSError):
                    self.store.write(name, self._content())


def _left(mark: str, written: str) -> bool:
    mark = mark.partition(" ")[0]
    if owner.gone(mark):
        return True
    if owner.here(mark):
        return False
    try:
        return (
            time.time() - float(written) > _GONE_SECONDS
        )  # hosts whose clocks differ by minutes do work twice
    except ValueError:
        return True


def under_way(store: Store) -> int:
    """How many leases are held by processes that may live."""
    if isinstance(store, Folder):
        return Claims(Path(store.root) / FOLDER / "claims").alive()
    held = store.read_all([one.name for one in store.found(LEASES)])
    return sum(not _left(*content.decode("utf-8", "replace").rpartition(" ")[::2]) for _, content in held)
