"""One utterance of a manifest, and the cells that every form of manifest writes alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Row:
    """One utterance: where its samples are, and what is known about them."""

    id: str
    audio: Path
    start: float = 0.0  # seconds into `audio`
    duration: float | None = None  # seconds; None: to the end
    text: str | None = None
    label: str | None = None
    speaker: str | None = None
    lang: str | None = None
    target_audio: Path | None = None  # the clean recording of a noisy one
    extra: Mapping[str, Any] = field(default_factory=dict)


def seconds(where: str, name: str, cell: Any) -> float:
    """A number of seconds, or the error of the place `where` that holds it."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0 and (value > 0 or name == "start")):
        raise ConfigError(
            f"{where}: {name} is {cell!r}; expected seconds, {'>= 0' if name == 'start' else '> 0'}"
        )
    return value


def resolve(folder: Path, name: str) -> Path:
    """A path as a manifest in `folder` writes it."""
    return folder / Path(name).expanduser()
