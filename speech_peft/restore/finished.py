"""What was restored, mixed with what came, block by block into a file or into samples."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ..errors import AudioError, ConfigError
from .blend import Blend, Mixture
from .result import FORMATS, GuardReport, RestoreOptions
from .wet import Taped

_WAV_BYTES = 4_000_000_000  # a plain WAV cannot say that it is longer


@dataclass(eq=False)
class Finished:
    """An input at the end of its way, before its samples are asked for."""

    mixture: Mixture
    blend: Blend
    taped: Taped
    report: GuardReport | None
    seconds: float


def written(
    done: Finished, path: Path | None, options: RestoreOptions
) -> tuple[np.ndarray | None, int, float | None]:
    """Samples or a file, how many samples full scale cut off, and the change of level in dB."""
    started = time.perf_counter()
    taped, mixture = done.taped, done.mixture
    made, clipped, kept = np.zeros(taped.dry.channels), 0, []
    with ExitStack() as stack:
        file = None if path is None else stack.enter_context(_file(path, taped, options))
        for start in range(0, taped.length, mixture.block):
            block = mixture.read(done.blend, start, min(mixture.block, taped.length - start))
            if not np.isfinite(block).all():
                raise RuntimeError("the model made samples that are no numbers")
            if file is None:
                kept.append(block)
            else:
                if "PCM" in options.subtype:
                    clipped += int((np.abs(block) > 1.0).sum())
                    block = np.clip(block, -1.0, 1.0)
                file.write(block)
            made += np.square(block, dtype=np.float64).sum(0)
    done.seconds += time.perf_counter() - started
    heard = mixture.came > 0
    change = 10 * np.log10(np.maximum(made[heard], 1e-30) / mixture.came[heard])
    level = float(change[np.argmax(np.abs(change))]) if heard.any() else None
    if file is not None:
        return None, clipped, level
    samples = np.concatenate(kept)
    return (samples[:, 0] if taped.mono else samples), clipped, level


def _file(path: Path, taped: Taped, options: RestoreOptions) -> soundfile.SoundFile:
    name, _ = FORMATS[options.format]
    if name == "FLAC" and taped.dry.channels > 8:
        raise ConfigError(f"flac holds at most 8 channels, and this has {taped.dry.channels}; write wav")
    if name == "WAV" and taped.length * taped.dry.channels * 4 > _WAV_BYTES:
        name = "RF64"
    try:
        return soundfile.SoundFile(path, "w", taped.rate, taped.dry.channels, options.subtype, format=name)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise AudioError(path, f"cannot be written as {name} {options.subtype}: {error}") from error
