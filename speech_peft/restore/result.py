"""What a restoration is made of, and what it can be asked for: plain frozen data."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError, did_you_mean

Channels = Literal["each", "mid", "mix"]
# What is written: suffix -> libsndfile's format and the subtypes that keep every sample in its place.
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "wav": ("WAV", ("PCM_16", "PCM_24", "PCM_32", "FLOAT")),
    "flac": ("FLAC", ("PCM_16", "PCM_24")),
}


@dataclass(frozen=True)
class RestoreOptions:
    """What decides the result; its hash tells whether an output is up to date."""

    strength: float = 1.0
    """Share of what the model made; the rest is what came."""
    sample_rate: int | None = None
    """Of the output; None keeps that of the input."""
    attenuation_db: float | None = None
    """The most that anything is reduced: so much of what came always stays. None: no limit."""
    channels: Channels = "each"
    """each: every channel by itself. mid: their mean is restored, and what differs between them stays.
    mix: one channel, their mean."""
    track: int | None = None
    """Of several audio tracks, counted from 1; None: the one that is marked as default."""
    steps: int | None = None
    """Rounds of a decoder that refines its waveform; None: what it was made for."""
    seed: int = 0
    """Of a decoder's noise."""
    window_seconds: float = 12.0
    """The longest stretch that the model is given at once, context and fades included."""
    context_seconds: float = 1.0
    """Of each window at both sides, thrown away afterwards."""
    format: str = "wav"
    subtype: str = "PCM_16"

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(
                f"strength: {self.strength:g} is not between 0 (as it came) and 1 (all restored)"
            )
        if self.attenuation_db is not None and self.attenuation_db < 0:
            raise ConfigError(f"atten-limit: {self.attenuation_db:g} dB is below 0; expected 0 or more")
        if self.sample_rate is not None and not 1_000 <= self.sample_rate <= 768_000:
            raise ConfigError(
                f"sr: {self.sample_rate} Hz is no rate of speech; expected such as 16000 or 48000"
            )
        if self.channels not in ("each", "mid", "mix"):
            raise ConfigError(
                f"channels: {self.channels!r} is none of its values. "
                f"{did_you_mean(self.channels, ('each', 'mid', 'mix'))}"
            )
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps: {self.steps}; expected 1 or more")
        if self.seed < 0:
            raise ConfigError(f"seed: {self.seed} is below 0")
        if self.format not in FORMATS:
            raise ConfigError(
                f"format: {self.format!r} is none of {', '.join(FORMATS)}; others would change the length"
            )
        if self.subtype not in FORMATS[self.format][1]:
            raise ConfigError(
                f"subtype: {self.format} has no {self.subtype!r}. "
                f"{did_you_mean(self.subtype, FORMATS[self.format][1])}"
            )

    @property
    def share(self) -> float:
        """Of what the model made, the limit of attenuation included."""
        least = 0.0 if self.attenuation_db is None else 10 ** (-self.attenuation_db / 20)
        return self.strength * (1 - least)


@dataclass(frozen=True)
class Check:
    """One thing that was compared between what came and what was made."""

    name: str
    ok: bool | None
    """None where it does not apply here; `note` says why."""
    value: float | None = None
    limit: float | None = None
    note: str = ""
    """How it was measured, or why it was not."""


@dataclass(frozen=True)
class Trial:
    """What the guard found at one strength."""

    strength: float
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.ok is False)


@dataclass(frozen=True)
class GuardReport:
    """What was tried, the boldest first, and what was taken."""

    trials: tuple[Trial, ...] = ()
    taken: Literal["asked", "weaker", "input"] = "asked"
    seconds: float = 0.0
    """Seconds of work that the guard took."""
    heard_seconds: float = 0.0
    """Seconds of the recording that speaker and words were compared in."""

    @property
    def fell_back(self) -> bool:
        return self.taken != "asked"


@dataclass(frozen=True, eq=False)
class Restored:
    """One input, restored or with the reason why not."""

    path: str
    """As it was given; "" for samples."""
    id: str = ""
    samples: np.ndarray | None = None
    """`(s,)` or `(s, c)` float32, where no folder for files was given."""
    file: Path | None = None
    """What was written, where one was."""
    sample_rate: int = 0
    source_rate: int = 0
    channels: int = 0
    length: int = 0
    """Samples of the output, of each channel."""
    duration: float = 0.0
    """Seconds of audio."""
    seconds: float = 0.0
    """Seconds of work, the guard's not included."""
    strength: float = 0.0
    """That was used, after the guard; 0 is the input."""
    level_db: float | None = None
    """Level of the output over that of the input, of the channel where they differ most; None for silence."""
    clipped: int = 0
    """Samples that full scale cut off."""
    guard: GuardReport | None = None
    truncated: bool = False
    """The file ends well before the length that it declares."""
    notes: tuple[str, ...] = ()
    """What a listener should know: other tracks, a header that lies, channels that cancel each other."""
    error: str | None = None
    stage: str = ""
    """Where it failed: "decode", "restore" or "write"."""

    def report(self) -> dict[str, Any]:
        """All but the samples, as JSON has it."""
        row = {
            name: getattr(self, name)
            for name in (
                "id", "sample_rate", "source_rate", "channels", "length", "duration", "strength", "level_db",
                "clipped", "truncated", "notes",
            )
        }  # fmt: skip
        return {"audio": self.path, **row, "guard": None if self.guard is None else _guard(self.guard)}


def _guard(report: GuardReport) -> dict[str, Any]:
    trials = [
        {"strength": trial.strength, "ok": trial.ok, "checks": [asdict(check) for check in trial.checks]}
        for trial in report.trials
    ]
    heard = round(report.heard_seconds, 3)
    return {"taken": report.taken, "heard_seconds": heard, "trials": trials}
