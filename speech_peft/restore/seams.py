"""Windows of a long recording for a model that rewrites it, and the joining of what comes back.

Each window brings context on both sides that is thrown away afterwards: near its edges a model is wrong, and
fading between two wrong regions helps nothing. What is left overlaps by a short fade.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import ConfigError
from .tape import Frames

RATE = 16_000
_GRID = 1280  # 0.08 s: whole frames of every encoder (20, 40 ms), whole samples at every usual rate
FADE = 2 * _GRID
TAIL = 2 * _GRID
"""Silence after the end, so that the last frames of the model still cover the last samples."""


@dataclass(frozen=True)
class Layout:
    """How a recording is laid out in windows; all in samples of 16 kHz."""

    window: int
    """The most that a model is given at once."""
    context: int

    @classmethod
    def of(cls, window_seconds: float, context_seconds: float) -> "Layout":
        """Raises ConfigError for a window that is no longer than what is thrown away of it."""
        window = int(window_seconds * RATE) // _GRID * _GRID
        layout = cls(window, -int(-context_seconds * RATE // _GRID) * _GRID)
        if context_seconds < 0 or layout.core < FADE:
            least = (2 * layout.context + 2 * FADE + TAIL) / RATE
            raise ConfigError(
                f"window: {window_seconds:g} s with {context_seconds:g} s of context on both sides leaves "
                f"nothing to keep. Expected a window of {least:g} s or more"
            )
        return layout

    @cached_property
    def core(self) -> int:
        """From one window to the next."""
        return self.window - 2 * self.context - FADE - TAIL


@dataclass(frozen=True, eq=False)
class Stretch:
    """A window: what the model is given, and which part of it is kept."""

    index: int
    samples: Frames
    """From `start` on, with context; the last one is followed by silence."""
    start: int
    first: int
    """First sample of the recording that is kept; up to `FADE` after it is shared with the window before."""
    last: int
    """End of what is kept."""


def stretches(blocks: Iterable[Frames], layout: Layout) -> Iterator[Stretch]:
    """The windows of a recording that streams by; a short one is a single window."""
    half, core = FADE // 2, layout.core
    held: Frames | None = None
    start = index = 0  # where `held` begins; the next window
    for block in blocks:
        held = block if held is None else np.concatenate([held, block])
        while start + len(held) > (end := (index + 1) * core + layout.context + half):
            first = max(0, index * core - half)
            yield Stretch(index, held[: end - start].copy(), start, first, (index + 1) * core + half)
            index += 1
            following = max(0, index * core - half - layout.context)
            held, start = held[following - start :].copy(), following
    if held is not None and len(held):
        padded = np.pad(held, ((0, TAIL), (0, 0)))
        yield Stretch(index, padded, start, max(0, index * core - half), start + len(held))


class Joiner:
    """What a model made of the windows, in one piece, at the model's rate.

    The shares of a fade add up in power, whatever the two pieces have in common:

        a = cos(u) / sqrt(1 + r sin 2u),   b = sin(u) / sqrt(1 + r sin 2u),   r = their correlation

    For strangers (r = 0) this is the equal-power fade, and for equals (r = 1) it is a + b = 1: the
    equal-power fade alone would make two equal pieces 3 dB louder.
    """

    def __init__(self, rate: int):
        self.rate = rate
        self._held: Frames | None = None

    def at(self, sample: int) -> int:
        """A position at 16 kHz as one at the model's rate, rounded up."""
        return -(-sample * self.rate // RATE)

    def add(self, stretch: Stretch, made: Frames) -> Frames:
        """What is finished with this window; all but the last hold back the fade into the next."""
        offset = self.at(stretch.start)
        kept = made[self.at(stretch.first) - offset : self.at(stretch.last) - offset]
        if self._held is not None:
            fade = len(self._held)
            kept = np.concatenate([crossfade(self._held, kept[:fade]), kept[fade:]])
        size = self.at(FADE)
        self._held, done = kept[-size:].copy(), kept[:-size]
        return done

    def rest(self) -> Frames | None:
        """What is left after the last window."""
        return self._held


def crossfade(before: Frames, after: Frames) -> Frames:
    """From one piece to another of the same length and place, at even power."""
    power = np.sqrt((np.square(before).sum(0) * np.square(after).sum(0)).astype(np.float64))
    shared = np.where(power > 0, (before * after).sum(0) / np.maximum(power, 1e-30), 1.0)
    common = np.clip(shared, 0.0, 1.0)  # against each other they would need ever more of both
    u = ((np.arange(len(before)) + 0.5) / len(before) * np.pi / 2)[:, None]
    mixed = (before * np.cos(u) + after * np.sin(u)) / np.sqrt(1 + common * np.sin(2 * u))
    return mixed.astype(np.float32)
