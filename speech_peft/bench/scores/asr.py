"""The scores of recognition runs: error rates with intervals, slices, speed, and how any two runs differ.

The result is plain data (`scores.json`), and what the report and the gate read.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

from ...metrics import bootstrap, slices, writing
from ...metrics.normalise import Normaliser
from ...metrics.slices import Options, known_columns, value_of
from ...metrics.wer import Counts, Pair, align_words, corpus, count, count_characters, count_words
from ...predictions.run import Run as AnyRun
from ...predictions.run import paired
from ...predictions.words import Prediction

FORMAT = 1


@dataclass(frozen=True)
class Scored:
    """A prediction with its errors."""

    prediction: Prediction
    pairs: tuple[Pair, ...]
    words: Counts
    characters: Counts
    raw_words: Counts
    """Without any normalisation."""
    met: str = ""
    """The id of the rule that its texts met; of the normaliser `auto` that depends on the language."""

    @property
    def id(self) -> str:
        return self.prediction.id


Run = AnyRun[Scored]


def score(
    predictions: Sequence[Prediction], normaliser: Normaliser, language: str = ""
) -> tuple[Scored, ...]:
    """Align every prediction with its reference; `language` is for rows that name none."""
    languages = [item.lang or language for item in predictions]
    once = lru_cache(maxsize=1024)(normaliser.__call__)  # what was heard right is normalised once, not twice
    said, heard = [], []
    for item, code in zip(predictions, languages, strict=True):
        said.append(once(item.text, code))
        heard.append(once(item.pred_text, code))
    rows = zip(predictions, align_words(said, heard), said, heard, strict=True)
    return tuple(
        Scored(
            item,
            pairs,
            count(pairs),
            count_characters(reference, hypothesis),
            count_words(item.text, item.pred_text),
            normaliser.meets(item.lang or language),
        )
        for item, pairs, reference, hypothesis in rows
    )


def scores(runs: Sequence[Run], normaliser: Normaliser, options: Options | None = None) -> dict[str, Any]:
    """Everything `scores.json` holds, for any number of runs."""
    options = options or Options()
    columns = {name for run in runs for item in run.predictions for name in item.prediction.columns}
    known_columns(columns, (*options.slice_by, options.group_by))
    unit = grouping(runs, options.group_by)
    return {
        "format": FORMAT,
        "task": "asr",
        "normaliser": {"id": normaliser.id, "version": normaliser.version, "met": _met(runs)},
        "metric": headline(runs),
        "bootstrap": {
            "unit": unit,
            "resamples": options.resamples,
            "level": options.level,
            "seed": options.seed,
        },
        "min_n": options.min_n,
        "runs": {run.name: _summary(run, unit, options) for run in runs},
        "comparisons": [compare(a, b, unit, options, headline(runs)) for a, b in combinations(runs, 2)],
    }


def headline(runs: Sequence[Run]) -> str:
    """`cer` where most of what was said is written without spaces, else `wer`.

    There a word error rate measures the segmenter: one wrong character of eleven is a rate of 1.
    """
    unspaced = writing.unspaced(item.prediction.text for run in runs for item in run.predictions)
    return "cer" if unspaced else "wer"


def counts_of(item: Scored, metric: str) -> Counts:
    """The errors that `wer` or `cer` is made of."""
    return item.characters if metric == "cer" else item.words


def _met(runs: Sequence[Run]) -> dict[str, int]:
    """How many utterances met which rule."""
    return dict(Counter({item.id: item.met for run in runs for item in run.predictions}.values()))


def grouping(runs: Sequence[Run], wanted: str = "auto") -> str:
    """The column whose values the bootstrap draws."""
    return slices.grouping([item.prediction for run in runs for item in run.predictions], wanted)


def compare(a: Run, b: Run, unit: str, options: Options, metric: str = "wer") -> dict[str, Any]:
    """How b differs from a on the utterances that both have, with the interval and p of the difference."""
    both = paired(a, b)
    pairs = [(counts_of(old, metric), counts_of(new, metric)) for old, new in both]
    errors_a, errors_b = [old.errors for old, _ in pairs], [new.errors for _, new in pairs]
    found = bootstrap.difference(
        errors_a,
        errors_b,
        [old.reference for old, _ in pairs],
        [value_of(old.prediction, unit) for old, _ in both],
        resamples=options.resamples,
        level=options.level,
        seed=options.seed,
    )
    changes = [new - old for old, new in zip(errors_a, errors_b, strict=True)]
    return {
        "a": a.name,
        "b": b.name,
        "metric": metric,
        "n": len(both),
        "better": sum(change < 0 for change in changes),
        "worse": sum(change > 0 for change in changes),
        "same": sum(change == 0 for change in changes),
        **(asdict(found) if found else {"delta": None, "low": None, "high": None, "p": None}),
    }


def _summary(run: Run, unit: str, options: Options) -> dict[str, Any]:
    audio = sum(item.prediction.duration for item in run.predictions)
    seconds = (
        run.seconds if run.seconds is not None else sum(item.prediction.time for item in run.predictions)
    )
    return {
        "n": len(run.predictions),
        "failed": sum(item.prediction.error is not None for item in run.predictions),
        "groups": len({value_of(item.prediction, unit) for item in run.predictions}),
        "wer": _rate(run.predictions, lambda item: item.words, unit, options),
        "cer": _rate(run.predictions, lambda item: item.characters, unit, options),
        "raw_wer": _plain(corpus(item.raw_words for item in run.predictions)),
        "audio_seconds": audio,
        "seconds": seconds,
        "rtfx": audio / seconds if seconds else None,
        "slices": {column: _slices(run, column, unit, options) for column in options.slice_by},
        "config": dict(run.config),
        "hardware": dict(run.hardware),
    }


def _plain(counts: Counts) -> dict[str, Any]:
    return {"rate": counts.rate, **asdict(counts), "reference": counts.reference}


def _rate(
    items: Sequence[Scored], counts_of: Callable[[Scored], Counts], unit: str, options: Options
) -> dict[str, Any]:
    counts = [counts_of(item) for item in items]
    found = bootstrap.interval(
        [one.errors for one in counts],
        [one.reference for one in counts],
        [value_of(item.prediction, unit) for item in items],
        resamples=options.resamples,
        level=options.level,
        seed=options.seed,
    )
    return _plain(corpus(counts)) | (asdict(found) if found else {"low": None, "high": None})


def _slices(run: Run, column: str, unit: str, options: Options) -> dict[str, Any]:
    scored = {item.id: item for item in run.predictions}
    groups = slices.sliced([item.prediction for item in run.predictions], column)
    cells: dict[str, Any] = {}
    for value, predictions in groups.items():
        items = [scored[prediction.id] for prediction in predictions]
        enough = len(items) >= options.min_n
        cells[value] = {
            "n": len(items),
            "wer": _rate(items, lambda item: item.words, unit, options) if enough else None,
            "cer": _rate(items, lambda item: item.characters, unit, options) if enough else None,
        }
    return cells
