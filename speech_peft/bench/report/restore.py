"""`report.html` of restoration: what changed by how much, heard at one loudness, seen side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...audio import io
from ...errors import AudioError
from ...metrics.metric import Sound
from ...predictions.restorations import Restoration
from ...predictions.run import by_recording, first
from ..scores.restore import CLEAN, INPUT, Run
from . import facts
from .page import Limits, Media, fill, slice_tables, within_budget
from .players_matched import links, side_by_side, size
from .regressions import baselines, worse_than

LEAD = (
    "dnsmos_ovrl",
    "estoi",
    "si_sdr",
    "speaker_similarity",
    "lsd",
    "loudness_change",
    "clipped",
    "length_error",
)
"""Columns of the first table, as far as anybody has them."""
_NO_SYSTEM = (INPUT, CLEAN)
_SORTED_BY = ("si_sdr", "estoi", "dnsmos_ovrl", "speaker_to_input")


def render(
    scores: Mapping[str, Any],
    runs: Sequence[Run],
    folder: str | Path,
    title: str | None = None,
    limits: Limits | None = None,
) -> str:
    """The page. `folder` is where it will lie, for relative links.

    Without a `title`, one that is made of what was measured.
    """
    limits = limits or Limits()
    rows = worst_first(runs)
    shown = rows[: limits.rows]
    media = _players(shown, Path(folder), limits)
    figures = {
        name: about for metric in scores["metrics"].values() for name, about in metric["figures"].items()
    }
    names = [run.name for run in runs]
    tested = next((name for name in reversed(names) if name not in _NO_SYSTEM), "")
    had = {name for run in scores["runs"].values() for name, one in run["figures"].items() if one["n"]}
    return fill(
        "restoration_report.html",
        head=facts.of_runs("Speech restoration", runs, "recordings", title, _NO_SYSTEM if tested else ()),
        scores=scores,
        runs=runs,
        figures=figures,
        lead=[name for name in LEAD if name in had],
        all=[name for name in figures if name in had],
        slices=_slices(scores, [name for name in LEAD[:4] if name in had]),
        rows=[
            _row(row, one) | {"worse": worse_than(row, names, tested, _worse)}
            for row, one in zip(shown, media, strict=True)
        ],
        guarded=any(run["fell_back"] is not None for run in scores["runs"].values()),
        tested=tested,
        baselines=baselines(names, tested, [CLEAN]) if tested else [],
        sorted_by=next((figures[name]["title"] for name in _SORTED_BY if name in had), "figure"),
        hidden=len(rows) - len(shown),
    )


def worst_first(runs: Sequence[Run]) -> list[dict[str, Restoration]]:
    """Recordings as `{run: restoration}`: what the last run made worse first, or could not do."""
    return sorted(by_recording(runs), key=gain)


def gain(row: Mapping[str, Restoration]) -> float:
    """How much better the last system's is than its input, by the first figure that both have."""
    tested = [item for name, item in row.items() if name not in _NO_SYSTEM]
    if not tested or INPUT not in row:
        return 0.0
    if tested[-1].error is not None:
        return float("-inf")
    return _gained(row[INPUT], tested[-1])


def _gained(was: Restoration, now: Restoration) -> float:
    before, after = was.figures, now.figures
    name = next((name for name in _SORTED_BY if name in before and name in after), None)
    return after[name] - before[name] if name else 0.0


def _worse(was: Restoration, now: Restoration) -> bool:
    if now.error is not None or was.error is not None:
        return was.error is None
    return wrong_words(now) > wrong_words(was) or _gained(was, now) < 0


def wrong_words(item: Restoration) -> int:
    """How many words the judge heard otherwise; 0 where it was not asked."""
    return 0 if item.words is None else sum(item.words.values()) - item.words["hits"]


def _players(
    rows: Sequence[Mapping[str, Restoration]], folder: Path, limits: Limits
) -> list[dict[str, Media]]:
    """Side by side until the budget is spent, links afterwards."""

    def play(row: Mapping[str, Restoration]) -> dict[str, Media]:
        try:
            return side_by_side({name: _sound(file) for name, file in _files(row).items()})
        except AudioError as error:
            return links(_files(row), folder, f"no player: {error}")

    longest = [max(item.duration for item in row.values()) for row in rows]
    return within_budget(rows, longest, play, lambda row: links(_files(row), folder), size, limits)


def _files(row: Mapping[str, Restoration]) -> dict[str, str]:
    return {name: item.audio_filepath for name, item in row.items() if item.audio_filepath}


def _sound(file: str) -> Sound:
    clip = io.load(file, None)
    return Sound(clip.samples, clip.sample_rate)


def _row(row: Mapping[str, Restoration], media: Mapping[str, Media]) -> dict[str, Any]:
    one, change = first(row), gain(row)
    return {
        "id": one.id,
        "speaker": one.speaker,
        "duration": one.duration,
        "key": max(change, -1e9),
        "text": one.text,
        "runs": {name: _cell(item) for name, item in row.items()},
        "media": media,
    }


def _cell(item: Restoration) -> dict[str, Any]:
    guard = (item.restored or {}).get("guard") or {}
    return {
        "figures": item.figures,
        "error": item.error,
        "said": item.pred_text,
        "guard": guard.get("taken", ""),
        "strength": (item.restored or {}).get("strength"),
    }


def _slices(scores: Mapping[str, Any], figures: Sequence[str]) -> list[dict[str, Any]]:
    """By column and figure: its values down, the runs across; without a single figure there is no table."""
    tables = [
        {
            "column": table["column"],
            "figure": figure,
            "rows": [(value, *_slice(cells, figure)) for value, cells in table["rows"]],
        }
        for table in slice_tables(scores)
        for figure in figures
    ]
    return [one for one in tables if any(mean is not None for *_, means in one["rows"] for mean in means)]


def _slice(cells: Sequence[Mapping[str, Any] | None], figure: str) -> tuple[int, list[float | None]]:
    """How many recordings there are, and the figure's mean in each run."""
    means = [(cell["figures"] or {}).get(figure) if cell else None for cell in cells]
    return max(cell["n"] for cell in cells if cell), means


def table(scores: Mapping[str, Any]) -> str:
    """Lines for a terminal: a system each."""
    figures = {
        name: about for metric in scores["metrics"].values() for name, about in metric["figures"].items()
    }
    runs = scores["runs"]
    lead = [name for name in LEAD if any(run["figures"].get(name, {}).get("n") for run in runs.values())]
    head = f"{'run':<20} {'n':>5}" + "".join(f" {figures[name]['title'][:14]:>14}" for name in lead)
    lines = [head + f" {'WER %':>8} {'ratio':>6} {'RTF':>7}"]
    for name, run in runs.items():
        cells = "".join(f" {_number(run['figures'][one]['mean']):>14}" for one in lead)
        rate = run["wer"]["rate"] if run["wer"] else None
        wer = "–" if rate is None else f"{100 * rate:.2f}"
        line = f"{name:<20.20} {run['n']:>5}{cells} {wer:>8} {_number(run['wer_ratio']):>6}"
        line += f" {_number(run['rtf']):>7}"
        line += f"  {run['failed']} failed" if run["failed"] else ""
        lines.append(line + (f"  {run['fell_back']} fell back" if run["fell_back"] else ""))
    missing: dict[str, str] = {}
    for run in runs.values():
        for metric, reasons in run["missing"].items():
            why, n = max(reasons.items(), key=lambda one: one[1])
            if n == run["n"]:
                missing.setdefault(metric, why)
    return "\n".join([*lines, *(f"{metric}: n/a: {why}" for metric, why in missing.items())])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
