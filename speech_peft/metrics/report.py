"""`report.html`: one file that shows what a score is made of, opens offline and carries its own audio.

Everything that comes from data passes Jinja's escaping; nothing is marked safe. The page's content policy
forbids it to load anything from anywhere, so even a mistake there could not call home.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ..errors import SpeechPeftError
from .asr import Run, Scored
from .players import player, spectrogram
from .predictions import Prediction
from .wer import Counts, Pair, error_pairs

Loader = Callable[[Prediction], tuple[NDArray[np.float32], int]]


@dataclass(frozen=True)
class Limits:
    """What keeps the page small enough to open at once and to send by mail."""

    rows: int = 500
    media_bytes: int = 14_000_000
    """Players and spectrograms, worst utterances first; the rest link to their files."""
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


def render(
    scores: Mapping[str, Any],
    runs: Sequence[Run],
    folder: str | Path,
    load: Loader | None = None,
    title: str = "Speech recognition benchmark",
    limits: Limits | None = None,
) -> str:
    """The page. `folder` is where it will lie, for relative links; without `load` there are no players.

    >>> html = render(scores, runs, "out", load)      # doctest: +SKIP
    """
    from jinja2 import Environment, StrictUndefined

    limits = limits or Limits()
    rows = worst_first(runs, str(scores["metric"]))
    shown = rows[: limits.rows]
    media = embed([_prediction(row) for row in shown], Path(folder), load, limits)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "signed": signed, "number": number}
    template = environment.from_string(
        files("speech_peft.metrics").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(
        title=title,
        scores=scores,
        names=[run.name for run in runs],
        lead=scores["metric"],
        slices=_slice_tables(scores),
        errors=[(run.name, _top_errors(run)) for run in runs],
        rows=[_row(row, scores["metric"], one) for row, one in zip(shown, media, strict=True)],
        hidden=len(rows) - len(shown),
        bars=_bars(scores),
        configs=[(run.name, _pretty(run.config), _pretty(run.hardware)) for run in runs],
    )


def worst_first(runs: Sequence[Run], metric: str = "wer") -> list[dict[str, Scored]]:
    """Utterances as `{run: scored}`, by the rate of the last run, the one in question."""
    table: dict[str, dict[str, Scored]] = {}
    for run in runs:
        for item in run.scored:
            table.setdefault(item.prediction.id, {})[run.name] = item

    def badness(row: dict[str, Scored]) -> tuple[float, int]:
        counts = _counts(list(row.values())[-1], metric)
        return _sortable(counts), counts.errors

    return sorted(table.values(), key=badness, reverse=True)


def embed(
    predictions: Sequence[Prediction], folder: Path, load: Loader | None, limits: Limits
) -> list[Media]:
    """Players until the budget is spent, links afterwards."""
    spent, shown = 0, []
    for prediction in predictions:
        link = relative_link(prediction.audio_filepath, folder)
        one = Media(link=link)
        if load is not None and spent < limits.media_bytes and prediction.duration <= limits.clip_seconds:
            one = _player(prediction, load, link)
            if spent + one.size > limits.media_bytes:
                one = Media(link=link)
        spent += one.size
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


def _player(prediction: Prediction, load: Loader, link: str) -> Media:
    try:
        samples, sample_rate = load(prediction)
        return Media(player(samples, sample_rate), spectrogram(samples), link)
    except (SpeechPeftError, OSError, RuntimeError, ValueError) as error:
        return Media(link=link, note=f"no player: {error}")


def _prediction(row: Mapping[str, Scored]) -> Prediction:
    return next(iter(row.values())).prediction


def _counts(item: Scored, metric: str) -> Counts:
    return item.characters if metric == "cer" else item.words


def _sortable(counts: Counts) -> float:
    """Errors without a reference word are worse than any rate."""
    return counts.rate if counts.rate is not None else float(1000 * counts.errors)


def _row(row: Mapping[str, Scored], metric: str, media: Media) -> dict[str, Any]:
    prediction = _prediction(row)
    runs = {
        name: {
            "rate": _counts(item, metric).rate,
            "key": _sortable(_counts(item, metric)),
            "errors": _counts(item, metric).errors,
            "pairs": _merged(item.pairs),
            "heard": item.prediction.pred_text,
            "error": item.prediction.error,
        }
        for name, item in row.items()
    }
    return {"prediction": prediction, "runs": runs, "media": media}


def _merged(pairs: Sequence[Pair]) -> list[Pair]:
    """Neighbours of one operation joined: fewer elements, the same words."""
    joined: list[Pair] = []
    for pair in pairs:
        if joined and joined[-1].operation == pair.operation and pair.operation != "substitute":
            last = joined.pop()
            pair = Pair(
                pair.operation,
                f"{last.reference} {pair.reference}".strip(),
                f"{last.hypothesis} {pair.hypothesis}".strip(),
            )
        joined.append(pair)
    return joined


def _top_errors(run: Run) -> list[dict[str, Any]]:
    found = error_pairs(item.pairs for item in run.scored)
    return [{"pair": pair, "times": times} for pair, times in found]


def _slice_tables(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table per column: its values down, the runs across; a column with one value says nothing."""
    runs = scores["runs"]
    tables = []
    for column in dict.fromkeys(column for run in runs.values() for column in run["slices"]):
        cells = {name: run["slices"].get(column, {}) for name, run in runs.items()}
        values = sorted({value for cell in cells.values() for value in cell})
        if len(values) > 1:
            rows = [(value, [cells[name].get(value) for name in runs]) for value in values]
            tables.append({"column": column, "rows": rows})
    return tables


def _bars(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
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


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), indent=2, ensure_ascii=False, default=str)
