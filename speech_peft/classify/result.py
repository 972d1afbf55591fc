"""What a classification is made of, and what it can be asked for: plain frozen data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from ..errors import ConfigError

Probabilities = Float32[ndarray, " c"]


@dataclass(frozen=True, eq=False)
class Scored:
    """A stretch of the recording, and how likely each class is in it."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    probabilities: Probabilities
    """In the order of the labels."""


@dataclass(frozen=True, eq=False)
class Heard:
    """What one adapter heard in a recording."""

    adapter: str
    labels: tuple[str, ...]
    probabilities: Probabilities
    """Of the whole recording: the mean over its windows."""
    windows: tuple[Scored, ...]
    """In the order of time; a recording no longer than a window is one."""

    def top(self, k: int = 5, window: Scored | None = None) -> tuple[tuple[str, float], ...]:
        """The `k` likeliest labels and their probabilities, of the recording or of one window."""
        found = self.probabilities if window is None else window.probabilities
        order = np.argsort(-found, kind="stable")[:k]
        return tuple((self.labels[i], float(found[i])) for i in order)


@dataclass(frozen=True, eq=False)
class Classified:
    """One input, classified by every adapter or with the reason why not."""

    path: str
    """As it was given; "" for samples."""
    id: str = ""
    """Of its row in a manifest, or its path below the folder that was given, without suffix."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """By the adapter's name, in the order they were given."""
    duration: float = 0.0
    """Seconds of audio."""
    seconds: float = 0.0
    """Seconds of work; its share of the batches it was in."""
    truncated: bool = False
    """The file ends well before the length that it declares."""
    notes: tuple[str, ...] = ()
    """What a listener should know: other tracks, a header that lies, channels that cancel each other."""
    error: str | None = None
    stage: str = ""
    """Where it failed: "decode" or "classify"."""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Weights, adapters, options: what made it."""


@dataclass(frozen=True)
class ClassifyOptions:
    """What decides the result; its hash tells whether an output is up to date."""

    window_seconds: float = 10.0
    """The longest stretch that is heard at once; shorter recordings are heard at their own length."""
    hop_seconds: float | None = None
    """From the start of a window to that of the next; by default half a window."""
    top_k: int = 5
    """How many labels are written."""
    channels: Literal["mix", "first"] = "mix"
    track: int | None = None
    """Of several audio tracks, counted from 1; None: the one that is marked as default."""

    adapter_task: str | None = None
    """Which of its tasks an adapter is told that differs by task; None: what a manifest's column says."""

    def asked(self) -> dict[str, Any]:
        """What decides the result. A field that came later counts where it is given."""
        fields = asdict(self)
        return (
            fields
            if self.adapter_task is not None
            else {k: v for k, v in fields.items() if k != "adapter_task"}
        )

    def __post_init__(self) -> None:
        for name, seconds in (("window", self.window_seconds), ("hop", self.hop)):
            if not 0 < seconds < float("inf"):
                raise ConfigError(f"{name}: {seconds:g} s is not a length; expected more than 0")
        if self.hop > self.window_seconds:
            raise ConfigError(
                f"hop: {self.hop:g} s is longer than a window of {self.window_seconds:g} s, so parts of a "
                "recording would be in none. Expected at most the window"
            )
        if self.top_k < 1:
            raise ConfigError(f"top-k: {self.top_k} labels; expected 1 or more")

    @property
    def hop(self) -> float:
        """Seconds between the starts of two windows."""
        return self.window_seconds / 2 if self.hop_seconds is None else self.hop_seconds
