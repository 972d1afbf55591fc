"""The clean side of a clip that is to be restored, aligned with what is heard to the sample."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from ...audio.manifest import Row
from ...errors import AudioError
from .decoded import DECODED

TOLERANCE_SECONDS = 0.01
"""Two recordings of one pair may differ in length by so much: codecs work in frames."""


@dataclass(frozen=True)
class Targets:
    """What is heard is made of the clip itself, or it is a recording with a clean one, its `target_audio`."""

    heard_rate: int
    sample_rate: int
    """Of what a decoder makes."""
    seed: int = 0
    peak_db: tuple[float, float] | None = None
    """Below full scale; None keeps the level."""

    def of(self, row: Row, samples: np.ndarray, variant: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is degraded, the clean clip, and the same at `sample_rate`; raises AudioError.

        All begin at one moment and are equally loud; the first two have as many samples as each other.
        """
        clean = samples if row.target_audio is None else self._recorded(row, self.heard_rate, len(samples))
        if self.sample_rate == self.heard_rate:
            reference = clean
        else:
            wanted = round(len(samples) * self.sample_rate / self.heard_rate)
            reference = self._recorded(row, self.sample_rate, wanted)
        gain = self._gain(row, clean, variant)
        return samples * gain, clean * gain, reference * gain

    def _recorded(self, row: Row, sample_rate: int, samples: int) -> np.ndarray:
        """The clean recording, cut or filled to so many samples."""
        path = row.target_audio or row.audio
        found = DECODED.load(replace(row, audio=path), sample_rate)
        if abs(len(found) - samples) > TOLERANCE_SECONDS * sample_rate:
            raise AudioError(
                path,
                f"lasts {len(found) / sample_rate:.3f} s, and what it is the clean one of "
                f"{samples / sample_rate:.3f} s; a pair begins and ends together",
            )
        return np.pad(found[:samples], (0, max(0, samples - len(found))))

    def _gain(self, row: Row, clean: np.ndarray, variant: int) -> np.float32:
        peak = float(np.abs(clean).max(initial=0.0))
        if self.peak_db is None or not peak:
            return np.float32(1.0)
        digest = hashlib.sha256(f"{self.seed}\n{row.id}\n{variant}\npeak".encode()).digest()
        drawn = np.random.default_rng(int.from_bytes(digest[:16], "big")).uniform(*self.peak_db)
        return np.float32(10 ** (drawn / 20) / peak)
