"""Clips that this process has decoded, for its next run: a sweep hears the same ones hundreds of times."""

from collections import OrderedDict

import numpy as np

from ...audio import io
from ...audio.containers.held import print_of
from ...audio.manifest import Row
from ...errors import AudioError

LIMIT_BYTES = 256 * 2**20
"""About an hour and ten minutes at 16 kHz."""
_Key = tuple[str, float, float | None, int]


class Decoded:
    """Samples by recording, place and rate; those longest unused give way when there are too many bytes."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES):
        self.limit_bytes, self.bytes = limit_bytes, 0
        self._kept: OrderedDict[_Key, np.ndarray] = OrderedDict()

    def load(self, row: Row, sample_rate: int) -> np.ndarray:
        """The clip's samples, which nobody may write to; raises AudioError."""
        try:
            key = (print_of(row.audio), row.start, row.duration, sample_rate)
        except OSError:
            return decode(row, sample_rate)  # which says what is wrong
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        samples = decode(row, sample_rate)
        self._kept[key] = samples
        self.bytes += samples.nbytes
        while self.bytes > self.limit_bytes:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes
        return samples


def decode(row: Row, sample_rate: int) -> np.ndarray:
    """A clip as recorded; raises AudioError."""
    samples = io.load(row.audio, sample_rate, row.start, row.duration).samples
    if not np.isfinite(samples).all():
        raise AudioError(row.audio, "holds NaN or infinite samples")
    return samples


DECODED = Decoded()
