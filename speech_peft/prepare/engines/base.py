"""What an engine gives: voices that say a sentence, as many as are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import soxr

from ...audio.io import Samples
from ...errors import ConfigError, did_you_mean

ENGINES = {"hibari": "hibari", "kokoro": "kokoro", "command": "command"}
"""Name to module. Each has `voices(settings) -> list[Voice]`."""


@runtime_checkable
class Voice(Protocol):
    """Somebody who can speak."""

    @property
    def name(self) -> str:
        """Of the speaker: the engine's own name for it, and how it is varied."""
        ...

    @property
    def sample_rate(self) -> int: ...

    def say(self, text: str) -> Samples:
        """The sentence, spoken; no samples where nothing in it can be."""
        ...


@dataclass(frozen=True)
class Settings:
    """Which voices are wanted; an engine reads what it knows."""

    number: int = 1
    seed: int = 0
    names: Sequence[str] = ()
    """The engine's own names for voices; by default all that it has for the language."""
    folder: Path | None = None
    """Kokoro: a folder of more voices."""
    command: str | None = None
    """The command line of the engine `command`."""


@dataclass(frozen=True)
class Manner:
    """How a voice is varied to be another's: factors, so that 1 leaves it as it is."""

    tempo: float = 1.0
    pitch: float = 1.0
    formants: float = 1.0

    def name(self, voice: str) -> str:
        """The speaker's name, which says what was done to the voice.

        >>> Manner().name("heart"), Manner(1.1, 0.6, 0.87).name("heart")
        ('heart', 'heart~tempo1.10~pitch0.60~formants0.87')
        """
        made = {"tempo": self.tempo, "pitch": self.pitch, "formants": self.formants}
        return voice + "".join(f"~{what}{factor:.2f}" for what, factor in made.items() if factor != 1.0)


def open_voices(engine: str, settings: Settings) -> list[Voice]:
    """So many voices of an engine. Raises ConfigError where it is unknown or not installed."""
    if engine not in ENGINES:
        raise ConfigError(f"engine: none is called {engine!r}. {did_you_mean(engine, ENGINES)}")
    if settings.number < 1:
        raise ConfigError(f"voices: {settings.number} of them; give at least 1")
    opened: Callable[[Settings], list[Voice]] = import_module(f".{ENGINES[engine]}", __package__).voices
    return opened(settings)


def manners(number: int, seed: int, free: bool) -> list[Manner]:
    """`number` manners, none like another; the first is the voice itself.

    A lower voice has a longer throat, so formants follow the pitch a little. `free` says that the engine can
    change one without the other; where it cannot, both are one factor in the range that still sounds human.
    """
    generator = np.random.default_rng(seed)
    found = [Manner()]
    while len(found) < number:
        tempo = generator.uniform(0.85, 1.2)
        pitch = np.exp(generator.uniform(np.log(0.5), np.log(1.3))) if free else generator.uniform(0.86, 1.14)
        formants = pitch**0.25 * generator.uniform(0.94, 1.06) if free else pitch
        found.append(Manner(*(round(float(factor), 2) for factor in (tempo, pitch, formants))))
    return found[:number]


def played(samples: Samples, sample_rate: int, rate: float) -> Samples:
    """The sound played at another rate: pitch, formants and tempo times `rate`."""
    return samples if rate == 1.0 else soxr.resample(samples, rate * sample_rate, sample_rate, "MQ")


def missing(engine: str, error: ImportError) -> ConfigError:
    """The error of an engine whose package is not there."""
    return ConfigError(f"engine: {engine} is not installed ({error}); pip install 'speech_peft[speak]'")
