"""What a file of tensors is known by, read once for as long as it stays as it is."""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

_State = tuple[str, int, int, int]


def digest_of(text: str, files: Sequence[Path]) -> str:
    """sha256 of a text and of what files hold, one after the other."""
    return _digest(text, tuple(map(_state, files)))


def _state(file: Path) -> _State:
    found = os.stat(file)
    return str(file), found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(256)
def _digest(text: str, files: tuple[_State, ...]) -> str:
    digest = hashlib.sha256(text.encode())
    for file, *_ in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
