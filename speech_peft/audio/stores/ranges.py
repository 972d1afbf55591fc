"""An object as a file that can be read at any place."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class _Readable(Protocol):
    def size(self, name: str) -> int: ...
    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes: ...


class Ranges:
    """Reads an object by blocks of it."""

    _BLOCK = 1 << 20

    def __init__(self, store: _Readable, name: str):
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

    def __enter__(self) -> "Ranges":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
