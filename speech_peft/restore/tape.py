"""Samples on their way that lie on the disk, so that an hour takes no more memory than a minute."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

Frames = Float32[ndarray, "n c"]


class Tape:
    """Float32 samples of several channels, written one after the other and read anywhere.

    The file has no name from the start, so nothing of it is left whatever happens. It is made in the folder
    of the output: a system's own folder for such files may lie in memory.

    >>> tape = Tape(channels=1)
    >>> tape.add(np.ones((3, 1), np.float32))
    >>> tape.read(2, 2)[:, 0].tolist()
    [1.0, 0.0]
    """

    def __init__(self, channels: int, folder: Path | None = None):
        self.channels, self.length = channels, 0
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (as long as this object)

    def add(self, samples: Frames) -> None:
        """Append samples of shape (n, c)."""
        self._file.seek(self.length * 4 * self.channels)
        self._file.write(np.ascontiguousarray(samples, np.float32).tobytes())
        self.length += len(samples)

    def read(self, start: int, count: int) -> Frames:
        """`count` samples from `start` on, as shape (n, c); silence behind the end."""
        self._file.seek(start * 4 * self.channels)
        raw = self._file.read(count * 4 * self.channels)
        found = np.frombuffer(raw, np.float32).reshape(-1, self.channels)
        if len(found) == count:
            return found
        return np.pad(found, ((0, count - len(found)), (0, 0)))

    def blocks(self, size: int, length: int) -> Iterator[tuple[int, Frames]]:
        """The first `length` samples in blocks of `size`, each with where it starts."""
        for start in range(0, length, size):
            yield start, self.read(start, min(size, length - start))

    def close(self) -> None:
        self._file.close()
