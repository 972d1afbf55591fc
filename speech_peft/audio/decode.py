"""The two decoders behind `io`: libsndfile for what it knows, PyAV (FFmpeg) for the rest and the damaged."""

import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import av
import av.error
import soundfile
from jaxtyping import Float32
from numpy import ndarray

from ..errors import AudioError

PathLike = str | os.PathLike[str]

_READ_FRAMES = 1 << 17  # frames decoded at a time; bounds the memory of a stream
_SEEK_MARGIN = 1.0  # seconds decoded before a slice, so that codecs with memory have settled
_UNSEEKABLE = {"g722", "amr", "gsm", "aac"}  # raw streams: FFmpeg guesses positions from the bit rate


@runtime_checkable
class Source(Protocol):
    """An open file of either decoder."""

    rate: int
    channels: int
    format: str
    seconds: float | None  # how long the audio is, as far as can be told without decoding
    declared: float | None  # how long the header says it is

    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]: ...
    def close(self) -> None: ...


def opened(path: PathLike) -> Source:
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
