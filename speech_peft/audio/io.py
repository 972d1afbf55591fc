"""Recordings in and out: any format, any rate, any number of channels -> float32 mono at one rate.

libsndfile decodes what it can (wav, flac, ogg, opus, mp3, aiff, ...); PyAV, whose wheel carries FFmpeg, does
the rest (m4a, aac, amr, g722, webm, mkv, mp4, ...). Every way a file can be bad ends in one `AudioError`
with the path and a reason, so that a batch can list it and go on.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import av
import av.error
import numpy as np
import soundfile
import soxr
from jaxtyping import Float32
from numpy import ndarray

from ..errors import AudioError, ConfigError
from .atomic import atomic_path

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".awb", ".caf", ".flac", ".g722", ".gsm", ".m4a",
    ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".sph", ".w64", ".wav", ".webm", ".wma",
})
# fmt: on
Channels = Literal["mix", "first"]
Samples = Float32[ndarray, " s"]
PathLike = str | os.PathLike[str]

_FORMATS = {  # what `save` writes: suffix -> libsndfile format and default subtype
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_READ_FRAMES = 1 << 17  # frames decoded at a time; bounds the memory of a stream
_SEEK_MARGIN = 1.0  # seconds decoded before a slice, so that codecs with memory have settled
_UNSEEKABLE = {"g722", "amr", "gsm", "aac"}  # raw streams: FFmpeg guesses positions from the bit rate


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself."""

    seconds: float
    sample_rate: int
    channels: int
    format: str


@dataclass(frozen=True)
class Clip:
    """Decoded samples, mono, in [-1, 1] as a rule (float files may exceed it)."""

    samples: Samples
    sample_rate: int
    source_rate: int
    source_channels: int
    truncated: bool = False  # the file ends well before the length it declares

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def info(path: PathLike) -> AudioInfo:
    """Length, rate and channels, from the header where it says so and by decoding where it does not."""
    with closing(_open(path)) as source:
        seconds = source.seconds
        if seconds is None:
            seconds = sum(len(block) for block in source.blocks(0.0)) / source.rate
        return AudioInfo(seconds, source.rate, source.channels, source.format)


def load(
    path: PathLike,
    sample_rate: int | None = 16_000,
    start: float = 0.0,
    duration: float | None = None,
    channels: Channels = "mix",
) -> Clip:
    """A recording, or its slice from `start` for `duration` seconds; `sample_rate=None` keeps its own rate.

    >>> load("prompt.g722", start=1.5, duration=2.0).samples.shape      # doctest: +SKIP
    (32000,)
    """
    with closing(Stream(path, sample_rate, None, start, duration, channels)) as blocks:
        samples = np.concatenate(list(blocks))
        return Clip(samples, blocks.sample_rate, blocks.source_rate, blocks.source_channels, blocks.truncated)


def stream(
    path: PathLike,
    sample_rate: int | None = 16_000,
    block_seconds: float = 30.0,
    start: float = 0.0,
    duration: float | None = None,
    channels: Channels = "mix",
) -> "Stream":
    """The recording in blocks of `block_seconds` (the last may be shorter), in memory that does not grow."""
    return Stream(path, sample_rate, block_seconds, start, duration, channels)


def save(path: PathLike, samples: ndarray, sample_rate: int, subtype: str | None = None) -> None:
    """Write `(s,)` or `(s, channels)` atomically; the suffix names the format, `subtype` is libsndfile's."""
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ConfigError(
            f"{path}: cannot write {suffix or 'a name without suffix'}; use {' '.join(_FORMATS)}"
        )
    format, default = _FORMATS[suffix]
    with atomic_path(path) as temporary:
        try:
            soundfile.write(temporary, samples, sample_rate, subtype or default, format=format)
        except (soundfile.SoundFileError, ValueError) as error:
            raise AudioError(path, f"cannot be written as {format} {subtype or default}: {error}") from error


class Stream:
    """Iterate once, in order; `truncated` is known when the iteration has ended. `close()` to stop early."""

    def __init__(
        self,
        path: PathLike,
        sample_rate: int | None,
        block_seconds: float | None,
        start: float,
        duration: float | None,
        channels: Channels,
    ):
        if start < 0 or (duration is not None and duration <= 0):
            raise AudioError(path, f"no slice starts at {start} s and lasts {duration} s")
        self.path, self.start, self.duration, self.channels = path, start, duration, channels
        self._source = _open(path)
        self.source_rate, self.source_channels = self._source.rate, self._source.channels
        self.sample_rate = sample_rate or self.source_rate
        self.truncated = False
        self._block = None if block_seconds is None else max(1, round(block_seconds * self.sample_rate))

    def close(self) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[Samples]:
        try:
            yield from _regroup(self._resampled(), self._block)
        finally:
            self.close()

    def _resampled(self) -> Iterator[Samples]:
        if self.sample_rate == self.source_rate:
            yield from self._mono()
            return
        # The same resampler object for slices, whole files and streams: all three agree to the bit.
        resampler = soxr.ResampleStream(self.source_rate, self.sample_rate, 1, dtype="float32")
        for block in self._mono():
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    def _mono(self) -> Iterator[Samples]:
        wanted = None if self.duration is None else max(1, round(self.duration * self.source_rate))
        done = 0
        for block in self._source.blocks(self.start):
            block = block if wanted is None else block[: wanted - done]
            if not np.isfinite(block).all():
                raise AudioError(self.path, "contains NaN or infinite samples")
            done += len(block)
            if len(block):
                mono = block[:, 0] if self.channels == "first" else block.mean(axis=1, dtype=np.float32)
                yield np.ascontiguousarray(mono)
            if done == wanted:
                return
        declared, decoded = self._source.declared, self.start + done / self.source_rate
        if not done:
            past = declared is not None and self.start >= declared > 0
            reason = f"ends at {declared:.2f} s, before {self.start:.2f} s" if past else "holds no samples"
            raise AudioError(self.path, reason)
        self.truncated = declared is not None and declared - decoded > max(0.5, 0.02 * declared)


def _regroup(blocks: Iterator[Samples], size: int | None) -> Iterator[Samples]:
    """The same samples in blocks of exactly `size`, the last one shorter."""
    if size is None:
        yield from blocks
        return
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= size:
            yield held[:size].copy()  # a view would keep the whole decoded block alive
            held = held[size:]
    if len(held):
        yield held


@runtime_checkable
class _Source(Protocol):
    """An open file of either decoder."""

    rate: int
    channels: int
    format: str
    seconds: float | None  # how long the audio is, as far as can be told without decoding
    declared: float | None  # how long the header says it is

    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]: ...
    def close(self) -> None: ...


def _open(path: PathLike) -> _Source:
    """The decoder that understands the file, or one clear reason why none does."""
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise AudioError(path, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise AudioError(path, str(error)) from error
    if empty:
        raise AudioError(path, "is empty (0 bytes)")
    try:
        return _SoundFile(path)
    except (soundfile.SoundFileError, ValueError, TypeError):
        pass  # TypeError: a headerless format that libsndfile knows by its suffix only
    try:
        return _AvFile(path)
    except AudioError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(path, f"is not audio that libsndfile or FFmpeg can decode ({reason})") from error


class _SoundFile:
    def __init__(self, path: PathLike):
        name: Any = os.fsencode(path) if os.name == "posix" else os.fspath(path)  # any bytes are a name
        self._path = path
        self._file = soundfile.SoundFile(name)
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.format = f"{self._file.format} {self._file.subtype}"
        self.seconds = self._file.frames / self.rate
        self.declared = self.seconds * _missing_share(self._file.extra_info)

    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]:
        first = min(round(start * self.rate), self._file.frames)
        # mpg123 needs the frames before a slice (the bit reservoir): without them its start is wrong.
        margin = min(first, int(_SEEK_MARGIN * self.rate)) if self._file.format == "MP3" else 0
        at = first - margin
        try:
            self._file.seek(at)
            while len(block := self._file.read(_READ_FRAMES, dtype="float32", always_2d=True)):
                if at + len(block) > first:
                    yield block[max(0, first - at) :]
                at += len(block)
            damaged = self._file.frames > 0 and at <= first < self._file.frames
        except soundfile.SoundFileError:
            damaged = True
        if damaged:  # libsndfile gives up at the first bad frame, FFmpeg decodes what is left
            with suppress(AudioError, av.error.FFmpegError), closing(_AvFile(self._path)) as rest:
                yield from rest.blocks(max(at, first) / self.rate)

    def close(self) -> None:
        self._file.close()


def _missing_share(log: str) -> float:
    """Declared over present bytes of a WAV's samples: libsndfile shortens a cut file's header by itself."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    declared, present = (int(group) for group in found.groups()) if found else (1, 1)
    streamed = declared >= 0x7FFFFF00  # a writer that could not seek back puts the largest number
    return 1.0 if streamed or not present else max(1.0, declared / present)


class _AvFile:
    def __init__(self, path: PathLike):
        self._container = av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})
        try:
            if not self._container.streams.audio:
                raise AudioError(path, "no audio stream")
            self._stream = self._container.streams.audio[0]
            self.rate, self.channels = self._stream.rate, self._stream.channels
            if not self.rate or not self.channels:
                raise AudioError(path, "its audio stream names no sample rate or channels")
        except BaseException:
            self._container.close()
            raise
        self.format = f"{self._container.format.name} {self._stream.codec_context.name}"
        self.seconds = self.declared = self._seconds()

    def _seconds(self) -> float | None:
        stream, container = self._stream, self._container
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return None if container.duration is None else container.duration / av.time_base

    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]:
        raw = bool(_UNSEEKABLE & set(self._container.format.name.split(",")))
        seeked = start > 2 * _SEEK_MARGIN and not raw
        first, tick = self._stream.start_time or 0, self._stream.time_base or Fraction(1, self.rate)
        if seeked:
            self._container.seek(first + int((start - _SEEK_MARGIN) / tick), stream=self._stream)
        at = 0  # frames before the next block; after a seek the first time stamp tells
        wanted = round(start * self.rate)
        for index, (frame, samples) in enumerate(self._frames()):
            if seeked and index == 0 and frame.pts is not None:
                at = round(float((frame.pts - first) * tick) * self.rate)
            if at + len(samples) > wanted:
                yield samples[max(0, wanted - at) :]
            at += len(samples)

    def _frames(self) -> Iterator[tuple[av.AudioFrame, Float32[ndarray, "n c"]]]:
        to_float = av.AudioResampler(format="fltp")
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except (StopIteration, av.error.EOFError):
                return
            except av.error.InvalidDataError:
                continue  # one damaged packet, as players skip it; the total length tells if much is missing
            for frame in frames:
                for converted in to_float.resample(frame):
                    yield frame, converted.to_ndarray().T

    def close(self) -> None:
        self._container.close()
