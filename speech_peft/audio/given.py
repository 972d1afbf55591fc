"""What people hand over as sound in Python, told apart in one place.

    "a.wav", Path("a.wav")                      a file
    array, tensor                               samples, at 16 kHz where nothing else is said
    (array, 8000)                               samples and their rate
    {"array": array, "sampling_rate": 8000}     the same, as Hugging Face's data sets have it decoded
    {"bytes": b"...", "path": "a.opus"}         a file in memory, as they have it undecoded; or its path alone
    an object with get_all_samples()            a decoder of theirs (torchcodec)

Samples are `(s,)`, or two axes of which the shorter is channels. Floats are at full scale at 1, int16 and
int32 at theirs. Whatever else comes is refused before anything is worked on.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float32
from numpy import ndarray

from ..errors import AudioError, ConfigError, NoSuchAudio
from . import io
from .containers.files import problem_of
from .mixing import Mixer

RATE = 16_000
MOST_CHANNELS = 64
LOUDEST = 1000.0
"""Floats beyond that are integers that nobody divided."""
FORMS = "a path, an array or tensor of samples, (array, rate), or {'array': array, 'sampling_rate': rate}"


@dataclass(frozen=True, eq=False)
class Wave:
    """Samples in memory."""

    samples: Float32[ndarray, "n c"]
    rate: int
    mono: bool
    """Whether they were one row without an axis for channels."""
    name: str = ""

    def heard(self, rate: int, channels: io.Channels) -> Float32[ndarray, " m"]:
        """One channel at another rate, as `io.load` makes it of a file; raises AudioError for NaN."""
        self.check()
        mono = self.samples[:, 0] if channels == "first" else Mixer()(self.samples)
        if rate == self.rate:
            return np.ascontiguousarray(mono)
        stream = soxr.ResampleStream(self.rate, rate, 1, dtype="float32")
        return stream.resample_chunk(np.ascontiguousarray(mono), last=True)

    def check(self) -> None:
        """Raises AudioError where a sample is no number."""
        if not np.isfinite(self.samples).all():
            raise AudioError(self.name or "samples", "contains NaN or infinite samples")


@dataclass(frozen=True, eq=False)
class Packed:
    """A file in memory; it is decoded when it is asked for."""

    content: bytes
    name: str = ""

    def wave(self) -> Wave:
        """All of it, at its own rate; raises AudioError."""
        with NamedTemporaryFile(suffix=Path(self.name).suffix) as file:
            file.write(self.content)
            file.flush()
            try:
                return _decoded(Path(file.name), self.name)
            except AudioError as error:
                raise AudioError(self.name or "bytes", error.reason) from None


Given = Path | Wave | Packed


def listed(inputs: Any, *others: type, rate: int = RATE) -> Iterable[Any]:
    """What was given, one thing or many, each as `one` makes it; things of `others` stay as they are.

    Raises ConfigError or NoSuchAudio at once for what is in a list; for what comes one by one, when it comes.
    """
    if isinstance(inputs, others) or _is_one(inputs):
        return [inputs if isinstance(inputs, others) else one(inputs, rate)]
    if not isinstance(inputs, Iterable):
        raise ConfigError(f"inputs: got {_shown(inputs)}; expected {FORMS}, or several of these")
    each = (thing if isinstance(thing, others) else one(thing, rate) for thing in inputs)
    return list(each) if isinstance(inputs, list | tuple) else each


def one(thing: Any, rate: int = RATE) -> Given:
    """A path, samples, or a file in memory; raises ConfigError for anything else, NoSuchAudio for no file."""
    match thing:
        case str() | os.PathLike():
            path = Path(thing)
            if problem := problem_of(path):
                raise NoSuchAudio(path, problem)
            return path
        case (samples, own) if _is_rate(own):
            return _wave(samples, own)
        case Mapping():
            return _of_mapping(thing)
        case _ if hasattr(thing, "get_all_samples"):
            found = thing.get_all_samples()
            return _wave(found.data, found.sample_rate)
        case _:
            return _wave(thing, rate)


def _is_one(thing: Any) -> bool:
    if isinstance(thing, str | os.PathLike | Mapping) or hasattr(thing, "get_all_samples"):
        return True
    pair = isinstance(thing, tuple) and len(thing) == 2 and _is_rate(thing[1])
    return pair or _is_array(thing)


def _is_array(thing: Any) -> bool:
    """A numpy array, or a tensor, without importing torch to ask."""
    return isinstance(thing, ndarray) or (hasattr(thing, "detach") and hasattr(thing, "numpy"))


def _is_rate(thing: Any) -> bool:
    return isinstance(thing, int | np.integer) and not isinstance(thing, bool)


def _of_mapping(thing: Mapping[str, Any]) -> Given:
    name = str(thing.get("path") or "")
    if thing.get("array") is not None:
        if "sampling_rate" not in thing:
            raise ConfigError("audio: {'array': …} has no 'sampling_rate', which says what its samples mean")
        array = thing["array"]
        return _wave(np.asarray(array) if isinstance(array, list) else array, thing["sampling_rate"], name)
    if isinstance(content := thing.get("bytes"), bytes):
        return Packed(content, name)
    if name:
        return one(name)
    raise ConfigError(
        f"audio: got a mapping with {', '.join(map(str, thing)) or 'nothing'}; expected {FORMS}"
    )


def _wave(thing: Any, rate: Any, name: str = "") -> Wave:
    if not _is_rate(rate) or not 0 < rate < 10_000_000:
        raise ConfigError(f"audio: a sampling rate is a whole number of Hz, got {_shown(rate)}")
    if not _is_array(thing):
        raise ConfigError(f"audio: got {_shown(thing)}; expected {FORMS}")
    array = np.asarray(thing.detach().cpu().float() if hasattr(thing, "detach") and _floats(thing) else thing)
    if array.ndim not in (1, 2) or (array.ndim == 2 and min(array.shape) > MOST_CHANNELS):
        raise ConfigError(
            f"audio: samples of shape {array.shape}; expected (s,), or (s, c) or (c, s) with up to "
            f"{MOST_CHANNELS} channels. Several recordings are given as a list"
        )
    rows = array[:, None] if array.ndim == 1 else array
    frames = rows if len(rows) >= rows.shape[1] or array.ndim == 1 else rows.T
    samples = _in_floats(frames)
    peak = float(np.abs(samples).max()) if samples.size else 0.0
    if LOUDEST < peak < np.inf:
        raise ConfigError(
            f"audio: samples of {array.dtype} reach {peak:.0f}; floats are at full scale at 1. Divide what "
            "comes from 16 bits by 32768"
        )
    return Wave(samples, int(rate), array.ndim == 1, name)


def _floats(tensor: Any) -> bool:
    return bool(tensor.is_floating_point())


def _in_floats(array: ndarray) -> Float32[ndarray, "n c"]:
    if array.dtype in (np.int16, np.int32):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(f"audio: samples of {array.dtype}; expected floats, int16 or int32")
    return array.astype(np.float32, copy=False)


def _decoded(path: Path, name: str) -> Wave:
    with closing(io.stream(path, None)) as stream:
        blocks: list[ndarray] = []
        for block in stream.frames():
            blocks.append(block)
            if sum(map(len, blocks)) > io.MOST_SAMPLES:
                raise AudioError(name, "is too long to be held in memory; give its path")
        found = np.concatenate(blocks)
    return Wave(found, stream.source_rate, found.shape[1] == 1, name)


def _shown(thing: Any) -> str:
    return f"{thing!r:.60} ({type(thing).__name__})"
