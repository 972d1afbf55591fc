"""The one door to a recording: is it a file that can be read, and which decoder reads all of it?

libsndfile reads what it knows and what says the truth about itself; FFmpeg reads the rest, the damaged, and
what is longer than its header says (`headers`).
"""

import os
from collections.abc import Iterator
from typing import IO, Any, Protocol, cast, runtime_checkable

import av.error
import soundfile
from jaxtyping import Float32
from numpy import ndarray

from ...errors import AudioError
from . import headers, held
from .ffmpeg import AvFile
from .files import PathLike as PathLike
from .files import problem_of
from .sound_file import UNKNOWN_FRAMES, Joined, SoundFile

RATES = (1_000, 1_000_000)  # Hz that a recording of sound can have
MOST_CHANNELS = 256
LONGEST_SECONDS = 7 * 24 * 3600.0  # no recording: a header that lies, or a file made to fill the memory
ERRORS = (av.error.FFmpegError, soundfile.SoundFileError, OSError, ValueError, MemoryError)
"""What decoders raise."""


@runtime_checkable
class Source(Protocol):
    """An open file of either decoder."""

    rate: int
    channels: int
    format: str
    declared: float | None  # how long the header says it is, where it says so
    reached: float  # seconds up to which the file was read, where that is more than what was decoded
    notes: list[str]  # what a listener should know; complete when the last block was read

    def length(self) -> float: ...  # seconds, by headers where they can be believed
    def blocks(self, start: float) -> Iterator[Float32[ndarray, "n c"]]: ...
    def close(self) -> None: ...


def opened(
    path: PathLike, track: int | None = None, start: float = 0.0, duration: float | None = None
) -> Source:
    """The decoder that understands the file, or an AudioError with one clear reason why none does.

    Of what lies in a store no more may be read than a slice of it needs.
    """
    if held.is_held(path):
        return cast(Source, _Held(held.taken(path, start, duration), path, track))
    problem = problem_of(path)
    if problem is not None:
        raise AudioError(path, problem)
    try:
        if not os.path.getsize(path):
            raise AudioError(path, "is empty (0 bytes)")
        source = _decoder(path, track)
    except OSError as error:
        raise AudioError(path, (error.strerror or str(error)).lower()) from error
    reason = _absurd(source)
    if reason is not None:
        source.close()
        raise AudioError(path, reason)
    return source


class _Held:
    """A source that is read from a temporary file, which ends with it."""

    def __init__(self, file: IO[bytes], path: PathLike, track: int | None):
        self._file = file
        try:
            self._source = opened(file.name, track)
        except AudioError as error:
            file.close()
            raise AudioError(path, error.reason) from error
        except BaseException:
            file.close()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def close(self) -> None:
        self._source.close()
        self._file.close()


def _decoder(path: PathLike, track: int | None) -> Source:
    header = headers.examine(path)
    if header.parts:
        try:
            return _only(Joined(path, header.parts), path, track)
        except (soundfile.SoundFileError, ValueError, TypeError):
            pass  # streams of a kind that libsndfile does not know
    elif header.honest is not False:
        try:
            source = SoundFile(path, patch=header.patch)
        except (soundfile.SoundFileError, ValueError, TypeError):
            pass  # TypeError: a headerless format that libsndfile knows by its suffix only
        else:
            if header.honest or 0 < source.frames < UNKNOWN_FRAMES:
                return _only(source, path, track)
            return _longer(source, path, track)
    source = _ffmpeg(path, track)
    source.believed = header.honest is not False
    if header.seconds is not None:
        source.declared = header.seconds
    return source


def _only(source: Source, path: PathLike, track: int | None) -> Source:
    """The source, which has one track."""
    if track not in (None, 1):
        source.close()
        raise AudioError(path, f"has 1 audio track; there is no track {track}")
    return source


def _longer(source: SoundFile, path: PathLike, track: int | None) -> Source:
    """Where libsndfile knows no length: FFmpeg, if it finds any sample."""
    try:
        other = _ffmpeg(path, track)
    except AudioError:
        if source.frames:
            source.close()
            raise
        return source
    source.close()
    return other


def _ffmpeg(path: PathLike, track: int | None) -> AvFile:
    try:
        return AvFile(path, track)
    except AudioError:
        raise
    except ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(path, f"is not audio that libsndfile or FFmpeg can decode ({reason})") from error


def _absurd(source: Source) -> str | None:
    """Why no recording of sound can be like that."""
    if not RATES[0] <= source.rate <= RATES[1]:
        return f"has {source.rate} samples a second; expected {RATES[0]} to {RATES[1]}"
    if not 1 <= source.channels <= MOST_CHANNELS:
        return f"has {source.channels} channels; expected 1 to {MOST_CHANNELS}"
    if source.declared is not None and source.declared > LONGEST_SECONDS:
        return (
            f"declares {source.declared / 3600:.0f} hours; a recording may last {LONGEST_SECONDS / 3600:.0f}"
        )
    return None
