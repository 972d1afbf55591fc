"""The views of a recording: what each microphone heard, channel by channel and file by file, at one rate.

A file of one channel is one view. Several files need not be of one length or rate: each view ends where its
file does. A view that is silent to the last bit was not recorded, and is as if it were not there.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from typing import Any, Literal

import numpy as np
import soxr
from jaxtyping import Float32
from numpy import ndarray

from ..errors import AudioError
from . import io
from .given import Wave
from .mixing import Mixer

MOST = 16
"""Views of one recording: each is encoded, and listens to all."""
Channels = Literal["mix", "first", "views"]
"""What is heard of several: their mean, the first, or each by itself."""
Samples = io.Samples
Files = Sequence[io.PathLike]


def load(
    files: Files, sample_rate: int, start: float = 0.0, duration: float | None = None
) -> tuple[Samples, ...]:
    """Each view of a recording, or of a slice of it; raises AudioError."""
    found = []
    for path in files:
        with closing(io.stream(path, sample_rate, start=start, duration=duration)) as stream:
            blocks = list(_resampled(stream.frames(), stream.source_rate, sample_rate))
            if sum(map(len, blocks)) * blocks[0].shape[1] > io.MOST_SAMPLES:
                raise AudioError(path, "is too long for all its channels to be held in memory; cut it")
            found += list(np.ascontiguousarray(np.concatenate(blocks).T))
    _check(files, len(found))
    return tuple(found)


def length(view: Samples) -> int:
    """Samples of a view; none of one that is silent to the last bit."""
    return len(view) if view.any() else 0


class Blocks:
    """A recording in blocks of `(s, 1 + n)`: the mean of its n views, and each of them. Iterate once, then
    `truncated` and `notes` are known; views of files that end early are silent from there on."""

    def __init__(
        self,
        files: Files,
        sample_rate: int,
        block_seconds: float = 30.0,
        start: float = 0.0,
        duration: float | None = None,
        track: int | None = None,
    ):
        self.files, self.sample_rate = files, sample_rate
        self._size = round(block_seconds * sample_rate)
        where: tuple[Any, ...] = (block_seconds, start, duration, "mix", track)
        self._streams = [io.stream(file, sample_rate, *where) for file in files]

    @property
    def truncated(self) -> bool:
        return any(stream.truncated for stream in self._streams)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a listener should know of the files."""
        return tuple(dict.fromkeys(chain(*(stream.notes for stream in self._streams))))

    def __iter__(self) -> Iterator[Float32[ndarray, "s m"]]:
        with ExitStack() as stack:
            for stream in self._streams:
                stack.enter_context(closing(stream))
            readers = [self._regrouped(stream) for stream in self._streams]
            widths = [stream.source_channels for stream in self._streams]
            _check(self.files, sum(widths))
            mixer = Mixer()
            while True:
                blocks = [next(reader) for reader in readers]
                longest = max(map(len, blocks))
                if not longest:
                    return
                views = np.concatenate([_longer(block, longest) for block in blocks], 1)
                yield np.column_stack([mixer(views), views])

    def _regrouped(self, stream: io.Stream) -> Iterator[Float32[ndarray, "s c"]]:
        """Blocks of one size, the last one shorter, and then empty ones without end."""
        held = np.zeros((0, stream.source_channels), np.float32)
        for block in _resampled(stream.frames(), stream.source_rate, self.sample_rate):
            held = np.concatenate([held, block])
            while len(held) >= self._size:
                yield held[: self._size].copy()
                held = held[self._size :]
        while True:
            yield held
            held = held[:0]


def of(wave: Wave, sample_rate: int) -> Float32[ndarray, "s m"]:
    """Samples in memory as one such block; raises AudioError."""
    wave.check()
    _check((wave.name or "samples",), wave.samples.shape[1])
    views = np.concatenate(list(_resampled(iter([wave.samples]), wave.rate, sample_rate)))
    return np.column_stack([Mixer()(views), views])


def _resampled(
    blocks: Iterator[Float32[ndarray, "n c"]], source: int, target: int
) -> Iterator[Float32[ndarray, "m c"]]:
    if source == target:
        yield from blocks
        return
    resampler: soxr.ResampleStream | None = None
    for block in blocks:
        resampler = resampler or soxr.ResampleStream(source, target, block.shape[1], dtype="float32")
        yield resampler.resample_chunk(np.ascontiguousarray(block)).reshape(-1, block.shape[1])
        rest = block[:0]
    if resampler is not None:
        yield resampler.resample_chunk(np.ascontiguousarray(rest), last=True).reshape(-1, rest.shape[1])


def _longer(block: Float32[ndarray, "s c"], size: int) -> Float32[ndarray, "t c"]:
    return np.pad(block, ((0, size - len(block)), (0, 0)))


def _check(files: Files, views: int) -> None:
    if views > MOST:
        raise AudioError(files[0], f"has {views} channels; at most {MOST} are heard one by one")
