"""Steps that take something away from some frequencies, or give it to them."""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from pydantic import AfterValidator

from ..io import Samples
from . import noise
from .step import BaseStep, Result, Scene, Span, positive

Gains = Float64[ndarray, " f"]
LOWEST, MOST = 20.0, 20.0
"""Hz, below which a gain is that of here; dB, to which a slope goes either way: rumble stays rumble."""


class BandLimit(BaseStep):
    """A zero-phase band pass with soft edges."""

    kind: Literal["band_limit"] = "band_limit"
    low: Span = (100.0, 400.0)  # Hz
    high: Span = (3000.0, 4000.0)

    def apply(self, x: Samples, scene: Scene) -> Result:
        low, high = scene.uniform(self.low), scene.uniform(self.high)
        return _band_pass(x, scene.sample_rate, low, high), {"low": low, "high": high}


class Notch(BaseStep):
    """A band that is missing, such as what two reflections cancel: so many octaves about a frequency."""

    kind: Literal["notch"] = "notch"
    centre: Annotated[Span, AfterValidator(positive)] = (300.0, 5000.0)
    """Hz; each octave is as likely."""
    octaves: Span = (1.0, 1.0)
    db: Span = (-40.0, -40.0)

    def apply(self, x: Samples, scene: Scene) -> Result:
        low, high = np.log2(self.centre)
        centre, octaves, db = (
            float(2 ** scene.uniform((low, high))),
            *map(scene.uniform, (self.octaves, self.db)),
        )

        def gain(hertz: Gains) -> Gains:
            return np.where(np.abs(np.log2(hertz / centre)) < octaves / 2, db, 0.0)

        return _filtered(x, scene.sample_rate, gain), {"centre": centre, "octaves": octaves, "db": db}


class Tilt(BaseStep):
    """A microphone or a line that falls towards high frequencies, or towards low ones."""

    kind: Literal["tilt"] = "tilt"
    db: Span = (3.0, 9.0)
    """An octave; either way is as likely."""

    def apply(self, x: Samples, scene: Scene) -> Result:
        db = scene.uniform(self.db) * scene.choice((-1, 1))
        return _filtered(x, scene.sample_rate, lambda hertz: _limited(db * np.log2(hertz / 1000))), {"db": db}


def _limited(gains: Gains) -> Gains:
    return gains.clip(-MOST, MOST)


def _filtered(x: Samples, sample_rate: int, decibels: Callable[[Gains], Gains]) -> Samples:
    """Without delay, as loud as before by mean power, and within full scale."""
    size = noise.power_of_two(len(x) + sample_rate // 10)
    gains = decibels(np.fft.rfftfreq(size, 1 / sample_rate).clip(LOWEST))
    made = np.fft.irfft(np.fft.rfft(x, size) * 10 ** (gains / 20), size)[: len(x)]
    made *= noise.rms(x) / max(noise.rms(made), 1e-9)
    return noise.within_full_scale(made)


def _band_pass(x: Samples, sample_rate: int, low: float, high: float) -> Samples:
    size = noise.power_of_two(len(x) + sample_rate // 10)
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    rise = np.clip((frequency - 0.8 * low) / max(0.4 * low, 1e-6), 0, 1)  # half way up at `low`
    fall = np.clip((1.05 * high - frequency) / (0.1 * high), 0, 1)  # half way down at `high`
    return np.fft.irfft(np.fft.rfft(x, size) * rise * fall, size)[: len(x)].astype(np.float32)
