"""Recordings as libsndfile decodes them, and files that are several recordings one after the other."""

import io as stdio
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import av.error
import numpy as np
import soundfile
import soxr
from jaxtyping import Float32
from numpy import ndarray

from ...errors import AudioError
from .ffmpeg import AvFile
from .files import PathLike
from .headers import Part, Patch

_READ_SAMPLES = 1 << 17  # decoded at a time; bounds the memory of a stream
_SEEK_MARGIN = 1.0  # seconds decoded before a slice, so that codecs with memory have settled
UNKNOWN_FRAMES = 1 << 60  # libsndfile gives its largest number where a stream does not say


class SoundFile:
    """One recording; of a file with others, `part` of it; with `patch` in place of what its header says."""

    def __init__(self, path: PathLike, part: Part | None = None, patch: Patch = ()):
        name: Any = os.fsencode(path) if os.name == "posix" else os.fspath(path)  # any bytes are a name
        self._path = path
        self._part = _PartOfFile(path, part, patch) if part or patch else None
        source: Any = self._part or name
        try:
            self._file = soundfile.SoundFile(source)
        except BaseException:
            if self._part is not None:
                self._part.close()
            raise
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.format = f"{self._file.format} {self._file.subtype}"
        self.frames = self._file.frames
        self.seconds = self.frames / self.rate
        self.declared: float | None = self.seconds * _missing_share(self._file.extra_info)
        self.reached = 0.0
        told = "its header does not say how long it is; it was read to its end"
        self.notes = [told] if patch else []

    def length(self) -> float:
        return self.seconds

    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]:
        first = min(round(start * self.rate), self.frames)
        # mpg123 needs the frames before a slice (the bit reservoir): without them its start is wrong.
        margin = min(first, int(_SEEK_MARGIN * self.rate)) if self._file.format == "MP3" else 0
        at = first - margin
        size = max(1, _READ_SAMPLES // max(1, self.channels // 2))
        try:
            self._file.seek(at)
            while len(block := self._file.read(size, dtype="float32", always_2d=True)):
                if at + len(block) > first:
                    yield block[max(0, first - at) :]
                at += len(block)
            damaged = self.frames > 0 and at <= first < self.frames
        except soundfile.SoundFileError:
            damaged = True
        if damaged and self._part is None:  # it gives up at the first bad frame, FFmpeg decodes what is left
            with suppress(AudioError, av.error.FFmpegError), closing(AvFile(self._path)) as rest:
                yield from rest.blocks(max(at, first) / self.rate)

    def close(self) -> None:
        self._file.close()
        if self._part is not None:
            self._part.close()


class Joined:
    """Recordings within one file, one after the other, at the rate and with the channels of the first."""

    def __init__(self, path: PathLike, parts: Sequence[Part]):
        self._sources: list[SoundFile] = []
        try:
            for part in parts:
                self._sources.append(SoundFile(path, part))
        except BaseException:
            self.close()
            raise
        first = self._sources[0]
        self.rate, self.channels, self.format = first.rate, first.channels, first.format
        self.declared: float | None = sum(source.declared or 0.0 for source in self._sources)
        self.reached = 0.0
        self.notes = [f"holds {len(parts)} recordings, which were joined"]

    def length(self) -> float:
        return sum(source.seconds for source in self._sources)

    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]:
        for source in self._sources:
            if start < source.seconds:
                yield from self._alike(source, start)
            start = max(0.0, start - source.seconds)

    def _alike(self, source: SoundFile, start: float) -> Iterator[Float32[ndarray, "n c"]]:
        resampler = None
        if source.rate != self.rate:
            resampler = soxr.ResampleStream(source.rate, self.rate, self.channels, dtype="float32")
        for block in source.blocks(start):
            if block.shape[1] != self.channels:
                block = np.repeat(block.mean(1, keepdims=True), self.channels, 1)
            yield block if resampler is None else resampler.resample_chunk(block).reshape(-1, self.channels)
        if resampler is not None:
            nothing = np.zeros((0, self.channels), np.float32)
            yield resampler.resample_chunk(nothing, last=True).reshape(-1, self.channels)

    def close(self) -> None:
        for source in self._sources:
            source.close()


class _PartOfFile(stdio.RawIOBase):
    """Some bytes of a file, as a file; a few of them others than they are."""

    def __init__(self, path: PathLike, part: Part | None, patch: Patch):
        self._file = open(path, "rb")  # noqa: SIM115 - `close` closes it
        self._start, self._stop = part or (0, os.path.getsize(path))
        self._patch = patch
        self._file.seek(self._start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: self._start, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._stop}[whence]
        self._file.seek(max(self._start, origin + offset))
        return self.tell()

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._stop - self._file.tell()))
        at = self.tell()
        found = bytearray(self._file.read(wanted))
        for place, new in self._patch:
            for i, byte in enumerate(new, place - at):
                if 0 <= i < len(found):
                    found[i] = byte
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()


def _missing_share(log: str) -> float:
    """Declared over present bytes of a WAV's samples: libsndfile shortens a cut file's header by itself."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    declared, present = (int(group) for group in found.groups()) if found else (1, 1)
    streamed = declared >= 0x7FFFFF00  # a writer that could not seek back puts the largest number
    return 1.0 if streamed or not present else max(1.0, declared / present)
