"""What the pages of all benchmarks share: players within a budget, links that stay here, and the frame.

Everything that comes from data passes Jinja's escaping; nothing is marked safe. The page's content policy
forbids it to load anything from anywhere, so even a mistake there could not call home.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ...errors import SpeechPeftError
from ...files import json_text
from ...metrics.slices import Recording, in_order
from .players import player, spectrogram

Loader = Callable[[Any], tuple[NDArray[np.float32], int]]
"""Samples and sample rate of what a prediction is about."""
Row = TypeVar("Row")
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Limits:
    """What keeps the page small enough to open at once and to send by mail."""

    rows: int = 500
    media_bytes: int = 14_000_000
    """Players and spectrograms, worst first; the rest link to their files."""
    clip_seconds: float = 60.0
    """Longer recordings are linked."""


@dataclass(frozen=True)
class Media:
    """How the page shows one recording."""

    sound: str = ""
    picture: str = ""
    link: str = ""
    note: str = ""

    @property
    def size(self) -> int:
        return len(self.sound) + len(self.picture)


def fill(template: str, **values: Any) -> str:
    """A template of this folder, filled; a name that it uses and nobody gives is an error."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("speech_peft.bench.report")
    environment = Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "signed": signed, "number": number, "pretty": pretty}
    return environment.get_template(template).render(**values)


def embed(predictions: Sequence[Recording], folder: Path, load: Loader | None, limits: Limits) -> list[Media]:
    """A player each until the budget is spent, links afterwards; links alone without `load`."""

    def link(prediction: Recording) -> Media:
        return Media(link=relative_link(prediction.audio_filepath, folder))

    if load is None:
        return [link(prediction) for prediction in predictions]
    seconds = [prediction.duration for prediction in predictions]
    play = partial(_player, load=load, link=link)
    return within_budget(predictions, seconds, play, link, lambda one: one.size, limits)


def within_budget(
    rows: Sequence[Row],
    seconds: Sequence[float],
    play: Callable[[Row], Shown],
    link: Callable[[Row], Shown],
    size: Callable[[Shown], int],
    limits: Limits,
) -> list[Shown]:
    """What plays inside the page while there is room; a link where a row is too long or too large."""
    spent, shown = 0, []
    for row, length in zip(rows, seconds, strict=True):
        one = None
        if spent < limits.media_bytes and length <= limits.clip_seconds:
            one = play(row)
        if one is None or spent + size(one) > limits.media_bytes:
            one = link(row)
        spent += size(one)
        shown.append(one)
    return shown


def relative_link(audio: str, folder: Path) -> str:
    """A link that cannot leave the file system: quoting takes the colon, and with it any `scheme:`."""
    if not audio:
        return ""
    try:
        path = os.path.relpath(audio, folder)
    except ValueError:  # another drive, or a NUL in the name
        return ""
    return quote(path.replace(os.sep, "/").encode(errors="surrogateescape"))


def percent(rate: float | None) -> str:
    """`12.3 %` of 0.123; a dash where there is no rate."""
    return "–" if rate is None else f"{100 * rate:.2f} %"


def signed(rate: float | None) -> str:
    """A difference in percentage points."""
    return "–" if rate is None else f"{100 * rate:+.2f}"


def number(value: float | None) -> str:
    """Three digits that matter."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def slice_tables(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table per column: its values down, the runs across; a column with one value says nothing."""
    runs = scores["runs"]
    tables = []
    for column in dict.fromkeys(column for run in runs.values() for column in run["slices"]):
        cells = {name: run["slices"].get(column, {}) for name, run in runs.items()}
        values = in_order({value for cell in cells.values() for value in cell})
        if len(values) > 1:
            rows = [(value, [cells[name].get(value) for name in runs]) for value in values]
            tables.append({"column": column, "rows": rows})
    return tables


def bars(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Where each run's rate and interval lie on one common axis of 0 to 100."""
    rates = {name: run[scores["metric"]] for name, run in scores["runs"].items()}
    ends = [rate["high"] or rate["rate"] or 0.0 for rate in rates.values()]
    scale = 96 / (max(ends, default=0.0) or 1.0)
    return {
        name: {
            "rate": scale * rate["rate"],
            "low": scale * (rate["rate"] if rate["low"] is None else rate["low"]),
            "high": scale * (rate["rate"] if rate["high"] is None else rate["high"]),
        }
        for name, rate in rates.items()
        if rate["rate"] is not None
    }


def pretty(value: Mapping[str, Any]) -> str:
    """A mapping as indented text."""
    return json_text.write(dict(value), indent=2, ensure_ascii=False, default=str)


def _player(prediction: Recording, load: Loader, link: Callable[[Recording], Media]) -> Media:
    linked = link(prediction)
    try:
        samples, sample_rate = load(prediction)
        return replace(linked, sound=player(samples, sample_rate), picture=spectrogram(samples))
    except (SpeechPeftError, OSError, RuntimeError, ValueError) as error:
        return replace(linked, note=f"no player: {error}")
