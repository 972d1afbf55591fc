"""Recordings through a model, window by window: what transcribing and classifying have in common.

Windows of many recordings are pooled up to `batch_seconds` and share batches of one length; each recording is
given when all of it was heard. A batch that fails is halved until the one window is found that fails alone.
Nothing grows with the length of a recording but what was heard in it.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from typing import ClassVar, Generic

import torch

from ..audio.chunks import Window
from ..audio.io import Channels
from ..backbones.base import Backbone, Features
from .reader import SAMPLE_RATE, Piece, R, Reader, Samples, Source

_ENCODE_SECONDS = 60.0  # of audio through the encoder at once; more no longer fits the processor's caches


class Listener(ABC, Generic[R]):
    """A model that hears pools of windows; subclasses say how recordings are cut and what is heard."""

    stage: ClassVar[str]
    """What an error of the model is listed under."""
    backbone: Backbone
    device: torch.device
    batch_seconds: float
    notes: list[str]
    """What a user should know of the last call, such as batches made smaller for lack of memory."""

    @abstractmethod
    def _recording(self, index: int, source: Source) -> R:
        """Where what is heard of an input will be gathered."""

    @abstractmethod
    def _cut(self, blocks: Iterable[Samples]) -> Iterator[Window]:
        """Windows of one recording; runs in the thread that reads."""

    @abstractmethod
    def _hear(self, pool: list[Piece[R]]) -> None:
        """Put what is heard in each piece into its file; the pool is sorted by padded length.

        May be called again with a part of a pool in which something failed.
        """

    def _listen(self, sources: Iterable[Source], channels: Channels) -> Iterator[R]:
        """Each recording as soon as all of it was heard, or with its error."""
        with closing(Reader(sources, self._recording, self._cut, channels)) as reader:
            pool: list[Piece[R]] = []
            waiting: dict[int, R] = {}
            filled = 0.0
            for event in reader:
                if isinstance(event, Piece):
                    pool.append(event)
                    filled += self._padded(event) / SAMPLE_RATE
                else:
                    waiting[event.index] = event
                    if event.error is not None:
                        pool = [piece for piece in pool if piece.file is not event]
                if filled >= self.batch_seconds:
                    self._process(pool)
                    pool, filled = [], 0.0
                    yield from _complete(waiting)
            self._process(pool)
            yield from _complete(waiting)

    def _padded(self, piece: Piece[R]) -> int:
        """Samples the piece takes in a batch; only pieces of one such length share one."""
        samples = len(piece.window.samples)
        if type(self.backbone).padded_samples is not Backbone.padded_samples:
            return self.backbone.padded_samples(samples)  # no mask: padding would reach the states
        # Encoders with a mask may share a batch at any length; whole seconds keep the padding small.
        return -(-samples // SAMPLE_RATE) * SAMPLE_RATE

    def _process(self, pool: list[Piece[R]]) -> None:
        """Hear every piece. A batch that fails is halved until the one piece is found that fails alone."""
        if not pool:
            return
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                self._hear(sorted(pool, key=self._padded))
        except (RuntimeError, MemoryError, ValueError, IndexError) as error:
            if len(pool) == 1:
                pool[0].file.fail(f"{type(error).__name__}: {error}", self.stage)
                return
            if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "memory" in str(error):
                self.batch_seconds /= 2
                self.notes.append(f"out of memory: batches are now {self.batch_seconds:g} s of audio")
            half = len(pool) // 2
            self._process(pool[:half])
            self._process(pool[half:])
            return
        spent = time.perf_counter() - started
        total = sum(self._padded(piece) for piece in pool)
        for piece in pool:
            piece.file.seconds += spent * self._padded(piece) / total
            piece.file.done += 1

    def _batches(self, pool: list[Piece[R]]) -> Iterator[list[Piece[R]]]:
        """What goes through the encoder together: pieces of one padded length, not too many."""
        for padded, group in groupby(pool, key=self._padded):
            pieces = list(group)
            size = max(1, int(_ENCODE_SECONDS * SAMPLE_RATE / padded))
            for i in range(0, len(pieces), size):
                yield pieces[i : i + size]

    def _features(self, batch: list[Piece[R]]) -> Features:
        lengths = torch.tensor([len(piece.window.samples) for piece in batch])
        audio = torch.zeros(len(batch), int(lengths.max()))
        for row, piece in zip(audio, batch, strict=True):
            row[: len(piece.window.samples)] = torch.from_numpy(piece.window.samples)
        return self.backbone.prepare(audio.to(self.device), lengths.to(self.device))


def _complete(waiting: dict[int, R]) -> Iterator[R]:
    for index in sorted(waiting):
        file = waiting[index]
        if file.error is not None or file.done == file.windows:
            del waiting[index]
            yield file
