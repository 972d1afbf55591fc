"""Recordings through a model, window by window: what transcribing and classifying have in common.

Windows of many recordings are pooled up to `batch_seconds` and share batches of one length; each recording is
given when all of it was heard. Whatever is raised on the way is the row of one recording: a batch that fails
is halved until the one window is found that fails alone. Nothing grows with the length of a recording but
what was heard in it.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Generic, TypeVar

import torch

from ..audio.views import Channels, length
from ..audio.windows.chunks import Block, Window
from ..backbones.base import Backbone, Features
from ..errors import SpeechPeftError
from ..opening.microphones import recorded
from .memory import lacks_memory
from .reader import SAMPLE_RATE, Piece, R, Reader, Source

_ENCODE_SECONDS = 60.0  # of audio through the encoder at once; more no longer fits the processor's caches
_GROWTH = 1.1  # of the pool with each full one that was heard, after one was too large
T = TypeVar("T")


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
    def _cut(self, blocks: Iterable[Block]) -> Iterator[Window]:
        """Windows of one recording; runs in the thread that reads."""

    @abstractmethod
    def _hear(self, pool: list[Piece[R]]) -> None:
        """Put what is heard in each piece into its file; the pool is sorted by padded length.

        May be called again with a part of a pool in which something failed.
        """

    def _ordered(self, events: Iterable[Piece[R] | R]) -> Iterator[Piece[R] | R]:
        """What was read, in the order in which it shall be heard."""
        yield from events

    def _listen(self, sources: Iterable[Source], channels: Channels, track: int | None = None) -> Iterator[R]:
        """Each recording as soon as all of it was heard, or with its error."""
        self._room = self.batch_seconds
        with closing(Reader(sources, self._recording, self._cut, channels, track)) as reader:
            pool: list[Piece[R]] = []
            waiting: dict[int, R] = {}
            filled = 0.0
            for event in self._ordered(reader):
                if isinstance(event, Piece):
                    pool.append(event)
                    filled += self._padded(event) / SAMPLE_RATE
                else:
                    waiting[event.index] = event
                    if event.error is not None:
                        pool = [piece for piece in pool if piece.file is not event]
                        filled = self._seconds(pool)
                if filled >= self._room:
                    self._process(pool)
                    pool, filled = [], 0.0
                    yield from _complete(waiting)
            self._process(pool)
            yield from _complete(waiting)

    def _finished(self, file: R, make: Callable[[R], T]) -> T:
        """What `make` makes of a recording; where it raises, of the recording with that error."""
        try:
            return make(file)
        except Exception as error:
            file.fail(reason(error), self.stage)
            return make(file)

    def _padded(self, piece: Piece[R]) -> int:
        """Samples the piece takes in a batch; only pieces of one such length share one."""
        samples = len(piece.window.samples)
        if type(self.backbone).padded_samples is not Backbone.padded_samples:
            return self.backbone.padded_samples(samples)  # no mask: padding would reach the states
        # Encoders with a mask may share a batch at any length; whole seconds keep the padding small.
        return -(-samples // SAMPLE_RATE) * SAMPLE_RATE

    def _alike(self, piece: Piece[R]) -> tuple[int, int]:
        """What pieces of one batch share: their padded length, and how many microphones heard them."""
        return self._padded(piece), len(piece.window.heard)

    def _seconds(self, pool: list[Piece[R]]) -> float:
        return sum(map(self._padded, pool)) / SAMPLE_RATE

    def _process(self, pool: list[Piece[R]]) -> None:
        """Hear every piece. A batch that fails is halved until the one piece is found that fails alone."""
        pool = [piece for piece in pool if piece.file.error is None]
        if not pool:
            return
        started = time.perf_counter()
        failure = self._failure(pool)
        if failure is None:
            spent = time.perf_counter() - started
            total = sum(map(self._padded, pool))
            for piece in pool:
                piece.file.seconds += spent * self._padded(piece) / total
                piece.file.done += 1
            if self._seconds(pool) >= self._room:  # what was too large once may fit now
                self._room = min(self.batch_seconds, self._room * _GROWTH)
        elif len(pool) == 1:
            pool[0].file.fail(failure.text, self.stage)
        else:
            half = len(pool) // 2
            if failure.memory:
                self._room = self._seconds(pool[:half])
                self.notes.append(f"out of memory: batches are now {self._room:g} s of audio")
            self._process(pool[:half])
            self._process(pool[half:])

    def _failure(self, pool: list[Piece[R]]) -> "_Failure | None":
        """Why the pool could not be heard. Words alone: an exception would keep its tensors alive."""
        try:
            with torch.inference_mode():
                self._hear(sorted(pool, key=self._alike))
        except Exception as error:
            return _Failure(reason(error), lacks_memory(error))
        return None

    def _batches(self, pool: list[Piece[R]]) -> Iterator[list[Piece[R]]]:
        """What goes through the encoder together: pieces of one padded length, not too many."""
        for (padded, views), group in groupby(pool, key=self._alike):
            pieces = list(group)
            size = max(1, int(_ENCODE_SECONDS * SAMPLE_RATE / padded / views))
            for i in range(0, len(pieces), size):
                yield pieces[i : i + size]

    def _features(self, batch: list[Piece[R]], pad_to: int = 0) -> Features:
        """Features of windows that share a batch, padded to at least so many samples.

        Where they have several microphones, each is a row, and those of one window follow each other.
        """
        heard = [samples for piece in batch for samples in piece.window.heard]
        several = len(heard) > len(batch)
        lengths = torch.tensor([length(samples) if several else len(samples) for samples in heard])
        audio = torch.zeros(len(heard), max(map(len, heard)))
        for row, samples in zip(audio, heard, strict=True):
            row[: len(samples)] = torch.from_numpy(samples)
        features = self.backbone.prepare(audio.to(self.device), lengths.to(self.device), pad_to)
        return recorded(features, lengths) if several else features


@dataclass(frozen=True)
class _Failure:
    text: str
    memory: bool


def reason(error: Exception) -> str:
    """An error as a row says it: our own messages as they are, a bug with its type."""
    return str(error) if isinstance(error, SpeechPeftError) else f"{type(error).__name__}: {error}"


def _complete(waiting: dict[int, R]) -> Iterator[R]:
    for index in sorted(waiting):
        file = waiting[index]
        if file.error is not None or file.done == file.windows:
            del waiting[index]
            yield file
