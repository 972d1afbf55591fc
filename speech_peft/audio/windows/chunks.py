"""Where there is speech, and windows of it cut at pauses, while the recording streams by.

A voice activity detector gives one number per 32 ms frame: above 0.5 is speech. Frames become windows no
longer than the encoder hears at once (`cutter.py`). Only the samples of the window in the making are held.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Literal

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from ...errors import ConfigError, did_you_mean
from . import silero
from .cutter import Cutter
from .cutter import Cutting as Cutting
from .window import SAMPLE_RATE as SAMPLE_RATE
from .window import Samples as Samples
from .window import Window as Window

FRAME = silero.FRAME
BLOCK_SECONDS = 30.0

Block = Float32[ndarray, "s *m"]
"""Samples; of several microphones their mean, and beside it each."""
Detector = Callable[[Samples], Float32[ndarray, " f"]]
Vad = Literal["silero", "energy", "none"]


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
        level = _levels(samples)
        here = float(np.quantile(level, 0.05)) if len(level) else 0.0
        # Falls at once and rises slowly, so that a block full of speech does not become the floor.
        self._floor = here if here < self._floor else min(here, self._floor + 3.0)
        speech = (level > self._floor + self.RISE_DB) & (level > self.QUIET_DB)
        return speech.astype(np.float32)


def windows(blocks: Iterable[Block], detect: Detector, cutting: Cutting | None = None) -> Iterator[Window]:
    """Windows of speech in the order of the stream; none where there is no speech.

    None is longer than `cutting.max_seconds`, to the sample. Of several microphones, in `views.Blocks`,
    there is speech where any hears it.

    >>> list(windows([np.zeros(16_000, np.float32)], Energy()))
    []
    """
    cutter = Cutter(cutting or Cutting())
    stream, ears = _Stream(), _Ears(detect)
    for block in _whole_frames(blocks):
        stream.forget(cutter.needed)
        samples = block if block.ndim == 1 else np.ascontiguousarray(block[:, 0])
        scores = ears(block)
        stream.add(block, scores)
        for score, level in zip(scores.tolist(), _levels(samples).tolist(), strict=True):
            if span := cutter.add(score, level):
                yield stream.take(*span)
    if span := cutter.finish():
        yield stream.take(*span)


class _Ears:
    """A detector for each microphone: where most of them hear noise alone, their mean is noise too."""

    def __init__(self, detect: Detector):
        self.detect, self.each = detect, list[Detector]()

    def __call__(self, block: Block) -> Float32[ndarray, " f"]:
        if block.ndim == 1:
            return self.detect(block)
        _, *views = np.ascontiguousarray(block.T)
        self.each = self.each or [deepcopy(self.detect) for _ in views]
        return np.max([detect(view) for detect, view in zip(self.each, views, strict=True)], 0)


class _Stream:
    """The samples that may still be asked for."""

    def __init__(self) -> None:
        self.start = 0  # in samples
        self.samples: Block = np.zeros(0, np.float32)
        self.scores = np.zeros(0, np.float32)

    def add(self, block: Block, scores: Float32[ndarray, " n"]) -> None:
        self.samples = np.concatenate([self.samples, block]) if len(self.samples) else block
        self.scores = np.concatenate([self.scores, scores])

    def forget(self, frame: int) -> None:
        """Nothing before this frame will be taken."""
        drop = min(max(0, frame * FRAME - self.start), len(self.samples))
        self.samples, self.start = self.samples[drop:], self.start + drop
        self.scores = self.scores[-(-drop // FRAME) :]

    def take(self, first: int, last: int) -> Window:
        begin = first * FRAME - self.start
        if begin < 0:
            raise RuntimeError(f"a window begins {-begin} samples before those that are held")
        samples = self.samples[begin : last * FRAME - self.start].copy()
        scores = self.scores[begin // FRAME : last - self.start // FRAME].copy()
        start = first * FRAME / SAMPLE_RATE
        if samples.ndim == 1:
            return Window(start, samples, scores)
        mean, *views = np.ascontiguousarray(samples.T)
        return Window(start, mean, scores, views=np.stack(views))


def _levels(samples: Samples) -> Float32[ndarray, " f"]:
    """The power of each frame in dB below full scale; -100 for silence."""
    rest = -len(samples) % FRAME
    frames = (np.pad(samples, (0, rest)) if rest else samples).reshape(-1, FRAME)
    return 10 * np.log10(np.einsum("fs,fs->f", frames, frames) / FRAME + 1e-10)


def _whole_frames(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same samples in blocks of whole frames; what is left comes last."""
    rest: Block = np.zeros(0, np.float32)
    for block in blocks:
        block = np.concatenate([rest, block]) if len(rest) else block
        whole = len(block) // FRAME * FRAME
        block, rest = block[:whole], block[whole:]
        if whole:
            yield block
    if len(rest):
        yield rest
