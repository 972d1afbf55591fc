"""hibari-tts: a small English voice, its weights in the wheel (Apache-2.0), far faster than real time.

Its network says for each 12.5 ms what the harmonics and the noise of the voice are, and how high it is; the
sound is made of that by signal processing. So other voices are made between the two: another pitch, and
spectra stretched along frequency, as those of a longer or shorter throat are. Other voices of the package
(`emma`, `fenrir`, ...) are fetched at their first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ...audio.io import Samples
from ...errors import ConfigError
from .base import Manner, Settings, Voice, manners, missing


def voices(settings: Settings) -> list[Voice]:
    """The named voices (by default the one in the package), each as often as it takes, varied."""
    try:
        opening = import_module("hibari").Hibari
    except ImportError as error:
        raise missing("hibari", error) from error
    names = list(settings.names or ["heart"])
    try:
        opened = {name: opening(voice=name) for name in dict.fromkeys(names)}
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"voice: {error}") from error
    rounds = manners(-(-settings.number // len(names)), settings.seed, free=True)
    every = [(name, manner) for manner in rounds for name in names]
    return [
        _Varied(manner.name(f"hibari-{name}"), opened[name], manner)
        for name, manner in every[: settings.number]
    ]


@dataclass(frozen=True)
class _Varied:
    name: str
    model: Any
    """A `hibari.Hibari`."""
    manner: Manner

    @property
    def sample_rate(self) -> int:
        return self.model.sample_rate

    def say(self, text: str) -> Samples:
        spoken = [self._sentence(phonemes) for phonemes in self.model.phonemize(text)]
        return np.concatenate([np.zeros(0, np.float32), *spoken])

    def _sentence(self, phonemes: str) -> Samples:
        ids = np.asarray([self.model.ids(phonemes)], np.int64)
        if ids.shape[1] < 3:  # its pads alone
            return np.zeros(0, np.float32)
        fed = {"ids": ids, "speed": np.asarray([self.manner.tempo], np.float32)}
        *spectra, pitch = (np.asarray(made)[0] for made in self.model.sess.run(None, fed))
        lh, th, ln, lr, phi = (_stretched(spectrum, self.manner.formants) for spectrum in spectra)
        noise = np.random.default_rng(ids.size)  # the same sentence sounds the same again
        return import_module("hibari.dsp").synth(lh, th, ln, lr, phi, pitch * self.manner.pitch, noise)


def _stretched(spectrum: np.ndarray, factor: float) -> np.ndarray:
    """`(bins, frames)` with what was at bin b now at `factor * b`."""
    if factor == 1.0:
        return spectrum
    last = len(spectrum) - 1
    place = np.minimum(np.arange(len(spectrum)) / factor, last)
    low = place.astype(int)
    share = (place - low).astype(np.float32)[:, None]
    return spectrum[low] * (1 - share) + spectrum[np.minimum(low + 1, last)] * share
