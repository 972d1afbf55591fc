"""Recordings in and out: any format, any rate, any number of channels -> float32 mono at one rate.

libsndfile decodes what it can (wav, flac, ogg, opus, mp3, aiff, ...); PyAV, whose wheel carries FFmpeg, does
the rest (m4a, aac, amr, g722, webm, mkv, mp4, ...). Every way a file can be bad ends in one `AudioError`
with the path and a reason, so that a batch can list it and go on. What a listener should know of a good
one (it is longer than it says, has other tracks, its channels cancel each other) is in `notes`.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32
from numpy import ndarray

from ..errors import AudioError, ConfigError
from ..files.atomic import atomic_path
from .containers import decode
from .containers.decode import PathLike as PathLike
from .mixing import Mixer

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".awb", ".caf", ".flac", ".g722", ".gsm", ".m4a",
    ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".sph", ".w64", ".wav", ".webm", ".wma",
})
# fmt: on
Channels = Literal["mix", "first"]
Samples = Float32[ndarray, " s"]

MOST_SAMPLES = 1 << 28  # of one clip in memory: 1 GiB, four hours and a half at 16 kHz
_WRITE_FRAMES = 1 << 16  # at a time: Vorbis of minutes written at once is a crash of libsndfile 1.2.2

_FORMATS = {  # what `save` writes: suffix -> libsndfile format and default subtype
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself."""

    seconds: float
    sample_rate: int
    channels: int
    format: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """Decoded samples, mono, in [-1, 1] as a rule (float files may exceed it)."""

    samples: Samples
    sample_rate: int
    source_rate: int
    source_channels: int
    truncated: bool = False  # the file ends well before the length it declares
    notes: tuple[str, ...] = ()  # what a listener should know

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def info(path: PathLike, track: int | None = None) -> AudioInfo:
    """Length, rate and channels: from the header where it can be believed, else from the whole file."""
    with closing(decode.opened(path, track)) as source, _as_audio_error(path):
        return AudioInfo(source.length(), source.rate, source.channels, source.format, tuple(source.notes))


def load(
    path: PathLike,
    sample_rate: int | None = 16_000,
    start: float = 0.0,
    duration: float | None = None,
    channels: Channels = "mix",
    track: int | None = None,
) -> Clip:
    """A recording, or its slice from `start` for `duration` seconds; `sample_rate=None` keeps its own rate.

    `track` is one of several audio tracks, counted from 1; None takes the one that is marked as default.
    Raises AudioError, also for what is too long to be held in memory; `stream` has no such limit.

    >>> load("prompt.g722", start=1.5, duration=2.0).samples.shape      # doctest: +SKIP
    (32000,)
    """
    with closing(Stream(path, sample_rate, None, start, duration, channels, track)) as stream:
        blocks, held = [], 0
        for block in stream:
            blocks.append(block)
            held += len(block)
            if held > MOST_SAMPLES:
                hours = MOST_SAMPLES / stream.sample_rate / 3600
                raise AudioError(path, f"is longer than {hours:.1f} hours, which are held at most; cut it")
        samples = np.concatenate(blocks)
        about = (stream.sample_rate, stream.source_rate, stream.source_channels)
        return Clip(samples, *about, stream.truncated, stream.notes)


def stream(
    path: PathLike,
    sample_rate: int | None = 16_000,
    block_seconds: float = 30.0,
    start: float = 0.0,
    duration: float | None = None,
    channels: Channels = "mix",
    track: int | None = None,
) -> "Stream":
    """The recording in blocks of `block_seconds` (the last may be shorter), in memory that does not grow."""
    return Stream(path, sample_rate, block_seconds, start, duration, channels, track)


def save(path: PathLike, samples: ndarray, sample_rate: int, subtype: str | None = None) -> None:
    """Write `(s,)` or `(s, channels)` atomically; the suffix names the format, `subtype` is libsndfile's."""
    save_blocks(path, [samples], sample_rate, subtype)


def save_blocks(
    path: PathLike, blocks: Iterable[ndarray], sample_rate: int, subtype: str | None = None
) -> None:
    """The same for what is too long to be held: blocks of `(s,)` or `(s, channels)`, one after the other."""
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ConfigError(
            f"{path}: cannot write {suffix or 'a name without suffix'}; use {' '.join(_FORMATS)}"
        )
    format, default = _FORMATS[suffix]
    with atomic_path(path) as temporary:
        try:
            file: soundfile.SoundFile | None = None
            for block in blocks:
                channels = 1 if block.ndim == 1 else block.shape[1]
                file = file or soundfile.SoundFile(
                    temporary, "w", sample_rate, channels, subtype or default, format=format
                )
                for at in range(0, len(block), _WRITE_FRAMES):
                    file.write(block[at : at + _WRITE_FRAMES])
            if file is not None:
                file.close()
        except (soundfile.SoundFileError, ValueError) as error:
            raise AudioError(path, f"cannot be written as {format} {subtype or default}: {error}") from error


class Stream:
    """Iterate once, in order; then `truncated` and `notes` are known. `close()` to stop early."""

    def __init__(
        self,
        path: PathLike,
        sample_rate: int | None,
        block_seconds: float | None,
        start: float,
        duration: float | None,
        channels: Channels,
        track: int | None = None,
    ):
        if start < 0 or (duration is not None and duration <= 0):
            raise AudioError(path, f"no slice starts at {start} s and lasts {duration} s")
        self.path, self.start, self.duration, self.channels = path, start, duration, channels
        self._source = decode.opened(path, track, start, duration)
        self._mixer, self._lengths = Mixer(), ""
        self.source_rate, self.source_channels = self._source.rate, self._source.channels
        self.sample_rate = sample_rate or self.source_rate
        self.truncated = False
        self._block = None if block_seconds is None else max(1, round(block_seconds * self.sample_rate))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a listener should know of the recording."""
        return (*self._source.notes, *([self._lengths] if self._lengths else []), *self._mixer.notes)

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
        for block in self.frames():
            yield np.ascontiguousarray(block[:, 0] if self.channels == "first" else self._mixer(block))

    def frames(self) -> Iterator[Float32[ndarray, "n c"]]:
        """All channels at the file's own rate, as they are decoded; instead of iterating, and once."""
        wanted = None if self.duration is None else max(1, round(self.duration * self.source_rate))
        done, most = 0, decode.LONGEST_SECONDS * self.source_rate
        with _as_audio_error(self.path):
            for block in self._source.blocks(self.start):
                block = block if wanted is None else block[: wanted - done]
                if not np.isfinite(block).all():
                    raise AudioError(self.path, "contains NaN or infinite samples")
                done += len(block)
                if done > most:
                    raise AudioError(self.path, f"is longer than {decode.LONGEST_SECONDS / 3600:.0f} hours")
                if len(block):
                    yield block
                if done == wanted:
                    return
        self._ended(self.start + done / self.source_rate, done)

    def _ended(self, decoded: float, done: int) -> None:
        """Compare what was read, up to `decoded` seconds, with what was declared."""
        declared = self._source.declared
        if not done:
            past = declared is not None and self.start >= declared > 0
            reason = f"ends at {declared:.2f} s, before {self.start:.2f} s" if past else "holds no samples"
            raise AudioError(self.path, reason)
        if declared is None:
            return
        slack = max(0.5, 0.02 * declared)
        self.truncated = declared - max(decoded, self._source.reached) > slack
        if decoded - declared > slack:
            self._lengths = f"lasts {decoded:.2f} s; its header declares {declared:.2f} s"


@contextmanager
def _as_audio_error(path: PathLike) -> Iterator[None]:
    """Whatever a decoder raises on the way is this file's error."""
    try:
        yield
    except decode.ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AudioError(path, f"cannot be decoded ({reason})") from error


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
