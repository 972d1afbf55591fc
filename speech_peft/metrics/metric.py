"""A metric of restoration: what it is measured on, what it needs, and what it rests on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import numpy as np
import soxr

from ..audio.io import Samples

INSTALL = "pip install 'speech_peft[restore]'"

Better = Literal["higher", "lower", "near"]
"""`near`: the nearer to 0 the better."""


class NotMeasured(Exception):
    """Why a metric has no figure for a recording."""


@dataclass(frozen=True)
class Sound:
    """Samples and their rate."""

    samples: Samples
    sample_rate: int

    def at(self, sample_rate: int) -> Samples:
        """The samples at another rate."""
        if sample_rate == self.sample_rate:
            return self.samples
        return np.asarray(soxr.resample(self.samples, self.sample_rate, sample_rate), np.float32)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Heard:
    """What a system made of a recording, the recording, and what it should have been where that is known."""

    output: Sound
    input: Sound
    reference: Sound | None = None

    def against_reference(self, sample_rate: int | None = None) -> tuple[Samples, Samples, int]:
        """Reference and output at one rate (None: the reference's), cut to the shorter; and the rate."""
        if self.reference is None:
            raise NotMeasured("there is no clean reference")
        rate = sample_rate or self.reference.sample_rate
        clean, output = self.reference.at(rate), self.output.at(rate)
        samples = min(len(clean), len(output))
        if not samples or not clean.any():
            raise NotMeasured("the reference is silent or empty")
        return clean[:samples], output[:samples], rate


@dataclass(frozen=True)
class Figure:
    """One number of a metric."""

    title: str
    unit: str
    better: Better | None
    """None: neither way is better by itself."""


class Metric(ABC):
    """Figures of one recording, and what they rest on."""

    name: ClassVar[str]
    figures: ClassVar[Mapping[str, Figure]]
    sample_rate: ClassVar[int | None] = None
    """Hz that it listens at; None: the recording's own."""
    needs: ClassVar[Literal["output", "input", "reference", "text"]] = "output"
    """What it needs besides what the system made."""
    package: ClassVar[str] = ""
    """The module it is measured with; "" where that is our own code."""
    licence: ClassVar[str] = "Apache-2.0 (this package)"
    weights: ClassVar[str] = "none"
    notice: ClassVar[str] = ""
    """What whoever uses it must know."""
    opt_in: ClassVar[bool] = False
    """Only when it is named."""

    def unavailable(self) -> str | None:
        """Why it is not to be had here; None where it is."""
        if self.package and find_spec(self.package) is None:
            return f"the package {self.package} is not installed: {INSTALL}"
        return None

    @abstractmethod
    def measure(self, heard: Heard) -> dict[str, float]:
        """The figures, those that can be had; raises NotMeasured with the reason where none can."""

    @classmethod
    def declaration(cls) -> dict[str, Any]:
        """All of the above as plain data, for `scores.json` and the report."""
        return {
            "figures": {name: vars(figure) for name, figure in cls.figures.items()},
            "sample_rate": cls.sample_rate,
            "needs": cls.needs,
            "package": cls.package,
            "licence": cls.licence,
            "weights": cls.weights,
            "notice": cls.notice,
        }
