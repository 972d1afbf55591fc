"""`report.html` of recognition: what its error rates are made of, on one page that opens offline.

>>> html = render(scores, runs, "out", load)      # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...metrics.wer import Counts, Pair, error_pairs
from ...predictions.run import by_recording, first
from ..scores.asr import Run, Scored, counts_of
from . import facts
from .page import Limits, Loader, Media, bars, embed, fill, slice_tables
from .regressions import baselines, worse_than


def render(
    scores: Mapping[str, Any],
    runs: Sequence[Run],
    folder: str | Path,
    load: Loader | None = None,
    title: str | None = None,
    limits: Limits | None = None,
) -> str:
    """The page. `folder` is where it will lie, for relative links; without `load` there are no players.

    Without a `title`, one that is made of what was measured.
    """
    limits = limits or Limits()
    names, metric = [run.name for run in runs], str(scores["metric"])
    rows = worst_first(runs, metric)
    shown = rows[: limits.rows]
    media = embed([first(row).prediction for row in shown], Path(folder), load, limits)
    return fill(
        "report.html",
        head=facts.of_runs("Speech recognition", runs, "utterances", title),
        scores=scores,
        runs=runs,
        lead=metric,
        slices=slice_tables(scores),
        errors=[(run.name, _top_errors(run)) for run in runs],
        rows=[
            _row(row, metric, one) | {"worse": worse_than(row, names, names[-1], partial(_worse, metric))}
            for row, one in zip(shown, media, strict=True)
        ],
        baselines=baselines(names, names[-1]) if names else [],
        hidden=len(rows) - len(shown),
        bars=bars(scores),
    )


def worst_first(runs: Sequence[Run], metric: str = "wer") -> list[dict[str, Scored]]:
    """Utterances as `{run: scored}`, by the rate of the last run, the one in question."""

    def badness(row: dict[str, Scored]) -> tuple[float, int]:
        counts = counts_of(list(row.values())[-1], metric)
        return _sortable(counts), counts.errors

    return sorted(by_recording(runs), key=badness, reverse=True)


def _worse(metric: str, was: Scored, now: Scored) -> bool:
    return counts_of(now, metric).errors > counts_of(was, metric).errors


def _sortable(counts: Counts) -> float:
    """Errors without a reference word are worse than any rate."""
    return counts.rate if counts.rate is not None else float(1000 * counts.errors)


def _row(row: Mapping[str, Scored], metric: str, media: Media) -> dict[str, Any]:
    runs = {
        name: {
            "rate": counts_of(item, metric).rate,
            "key": _sortable(counts_of(item, metric)),
            "errors": counts_of(item, metric).errors,
            "pairs": _merged(item.pairs),
            "heard": item.prediction.pred_text,
            "error": item.prediction.error,
        }
        for name, item in row.items()
    }
    return {"prediction": first(row).prediction, "runs": runs, "media": media}


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
    found = error_pairs(item.pairs for item in run.predictions)
    return [{"pair": pair, "times": times} for pair, times in found]
