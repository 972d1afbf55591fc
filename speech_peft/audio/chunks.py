"""Where there is speech, and windows of it cut at pauses, while the recording streams by.

A voice activity detector gives one number per 32 ms frame: above 0.5 is speech. Frames become regions,
regions become windows no longer than the encoder hears at once. Only the samples of the window in the making
are held.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from ..errors import ConfigError, did_you_mean
from . import silero

SAMPLE_RATE = 16_000
FRAME = silero.FRAME
FRAME_SECONDS = FRAME / SAMPLE_RATE
BLOCK_SECONDS = 30.0

Samples = Float32[ndarray, " s"]
Detector = Callable[[Samples], Float32[ndarray, " f"]]
Vad = Literal["silero", "energy", "none"]


@dataclass(frozen=True)
class Cutting:
    """How frames become windows; all in seconds."""

    max_seconds: float = 30.0
    """The longest window."""
    join_gap: float = 2.0
    """A pause this long ends the window even when there is room."""
    min_pause: float = 0.3
    """A shorter one does not end a region of speech."""
    min_speech: float = 0.1
    """Shorter bursts are no speech."""
    pad: float = 0.4
    """Kept before and after speech: onsets and last consonants are quiet."""
    on: float = 0.5
    off: float = 0.35


@dataclass(frozen=True)
class Window:
    """A piece of a recording that holds speech."""

    start: float
    """Seconds from the start of the recording."""
    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    @property
    def end(self) -> float:
        return self.start + self.seconds


def detector(vad: str) -> Detector:
    """A fresh detector for one stream; without Silero's weights its place is taken by the energy."""
    if vad == "silero":
        return silero.Silero() if silero.weights_file() else Energy()
    if vad == "energy":
        return Energy()
    if vad == "none":
        return lambda samples: np.ones(-(-len(samples) // FRAME), np.float32)
    raise ConfigError(
        f"vad: no detector is called {vad!r}. {did_you_mean(vad, ('silero', 'energy', 'none'))}"
    )


class Energy:
    """Speech is what rises clearly above the quietest frames of its block; steady noise never does."""

    RISE_DB = 10.0
    QUIET_DB = -60.0  # below full scale; nothing quieter is speech

    def __init__(self) -> None:
        self._floor = np.inf

    def __call__(self, samples: Samples) -> Float32[ndarray, " f"]:
        frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
        level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
        here = float(np.quantile(level, 0.05)) if len(level) else 0.0
        # Falls at once and rises slowly, so that a block full of speech does not become the floor.
        self._floor = here if here < self._floor else min(here, self._floor + 3.0)
        speech = (level > self._floor + self.RISE_DB) & (level > self.QUIET_DB)
        return speech.astype(np.float32)


def windows(blocks: Iterable[Samples], detect: Detector, cutting: Cutting | None = None) -> Iterator[Window]:
    """Windows of speech in the order of the stream; none where there is no speech.

    >>> list(windows([np.zeros(16_000, np.float32)], Energy()))
    []
    """
    cutting = cutting or Cutting()
    stream = _Stream()
    regions = _regions(stream, blocks, detect, cutting)
    limit, pad = _frames(cutting.max_seconds), _frames(cutting.pad)
    held: tuple[int, int] | None = None  # first and last frame of the window in the making, padding included
    for first, last in regions:
        first, last = max(first - pad, 0 if held is None else held[1]), last + pad
        if held and first - held[1] + 2 * pad <= _frames(cutting.join_gap) and last - held[0] <= limit:
            held = held[0], last
            continue
        if held:
            yield stream.take(*held)
        held = first, min(last, first + limit)
    if held:
        yield stream.take(*held)


class _Stream:
    """The samples that may still be asked for."""

    def __init__(self) -> None:
        self.start = 0  # in samples
        self.samples = np.zeros(0, np.float32)

    def add(self, block: Samples) -> None:
        self.samples = np.concatenate([self.samples, block])

    def forget(self, frame: int) -> None:
        """Nothing before this frame will be taken."""
        drop = min(max(0, frame * FRAME - self.start), len(self.samples))
        self.samples, self.start = self.samples[drop:].copy() if drop else self.samples, self.start + drop

    def take(self, first: int, last: int) -> Window:
        begin = max(0, first * FRAME - self.start)
        return Window(
            (self.start + begin) / SAMPLE_RATE, self.samples[begin : last * FRAME - self.start].copy()
        )


def _regions(
    stream: _Stream, blocks: Iterable[Samples], detect: Detector, cutting: Cutting
) -> Iterator[tuple[int, int]]:
    """Runs of speech frames `[first, last)`; one longer than a window is cut where it is quietest."""
    pause, least, pad = _frames(cutting.min_pause), _frames(cutting.min_speech), _frames(cutting.pad)
    room = _frames(cutting.max_seconds) - 2 * pad
    scores = np.zeros(0, np.float32)  # of the frames from `base` on
    base = at = 0
    first = quiet = -1  # where speech began, where the present pause began
    for block in _whole_frames(blocks):
        # What the window in the making holds is at most one window back, the padding of a region before it.
        stream.forget((first if first >= 0 else at) - room - 4 * pad - _frames(cutting.join_gap))
        stream.add(block)
        scores = np.concatenate([scores[max(0, at - room - base) :], new := detect(block)])
        base = at + len(new) - len(scores)
        for score in new.tolist():
            if first < 0:
                first = at if score >= cutting.on else -1
            elif score >= cutting.off:
                quiet = -1
            elif quiet < 0:
                quiet = at
            if first >= 0 and quiet >= 0 and at - quiet >= pause:
                if quiet - first >= least:
                    yield first, quiet
                first = quiet = -1
            elif first >= 0 and at - first >= room:
                cut = quiet if quiet > first else first + _quietest(scores[first - base : at - base])
                yield first, cut
                first, quiet = cut, -1
            at += 1
    end = quiet if quiet >= 0 else at
    if first >= 0 and end - first >= least:
        yield first, end


def _quietest(scores: Float32[ndarray, " f"]) -> int:
    """The frame in the last third where speech is least likely; the latest of several."""
    third = len(scores) * 2 // 3
    return third + len(scores) - third - 1 - int(np.argmin(scores[third:][::-1]))


def _whole_frames(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The same samples in blocks of whole frames; what is left comes last."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        block = np.concatenate([rest, block])
        whole = len(block) // FRAME * FRAME
        block, rest = block[:whole], block[whole:]
        if whole:
            yield block
    if len(rest):
        yield rest


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)
