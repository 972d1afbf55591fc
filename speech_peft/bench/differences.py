"""What changed between two runs, as lines for a terminal: the figure, then what broke, the worst first."""

from collections.abc import Iterator

from ..metrics.slices import Options, grouping
from ..predictions.classes import ClassPrediction
from ..predictions.restorations import Restoration
from ..predictions.run import paired
from .report.classify import badness, predicted, right
from .report.restore import wrong_words
from .scores import asr, classify
from .scores import restore as restoration_scores
from .scores.classify import SOURCES
from .table import difference


def of_words(old: asr.Run, new: asr.Run, options: Options, top: int) -> Iterator[str]:
    """Utterances by how many errors they gained."""
    runs = [old, new]
    unit, metric = asr.grouping(runs, options.group_by), asr.headline(runs)
    yield difference(asr.compare(old, new, unit, options, metric))
    gained = [
        (asr.counts_of(now, metric).errors - asr.counts_of(was, metric).errors, was, now)
        for was, now in paired(old, new)
    ]
    gained.sort(key=lambda change: -change[0])
    for errors, was, now in gained[:top]:
        if errors:
            yield f"{errors:+4d}  {now.prediction.id}"
            yield f"      said  {now.prediction.text}"
            yield f"      {old.name}: {was.prediction.pred_text}"
            yield f"      {new.name}: {now.prediction.pred_text}"


def of_classes(old: classify.Run, new: classify.Run, options: Options, top: int) -> Iterator[str]:
    """Clips that broke, the most confidently wrong first, then those that were mended."""
    unit = grouping([*old.predictions, *new.predictions], options.group_by, SOURCES)
    yield difference(classify.compare(old, new, unit, options))
    changed = [(was, now) for was, now in paired(old, new) if right(was) != right(now)]
    changed.sort(key=lambda pair: (right(pair[1]), -badness(pair[1])))
    for was, now in changed[:top]:
        yield f"{'mended' if right(now) else 'broke '}  {now.id}"
        yield f"        is {now.label}"
        yield f"        {old.name}: {_said(was)}"
        yield f"        {new.name}: {_said(now)}"


def of_restorations(
    old: restoration_scores.Run, new: restoration_scores.Run, options: Options, top: int
) -> Iterator[str]:
    """Every figure that both have, then recordings by what they lost: all, words, the first figure."""
    metrics = restoration_scores.metrics_of([old, new])
    unit = grouping([*old.predictions, *new.predictions], options.group_by)
    changes = restoration_scores.compare(old, new, metrics, unit, options)
    for one in changes:
        line = f"{one['figure']}: {one['delta']:+.3g}"
        if one.get("low") is not None:
            line += f" ({one['low']:+.3g} to {one['high']:+.3g}), p {one['p']:.2g}"
        better = "" if one["better"] is None else f": {one['better']} better, {one['worse']} worse"
        yield f"{line}; {one['n']} recordings{better}"
    rates = [restoration_scores.wer(run.predictions) for run in (old, new)]
    if all(rate is not None and rate["rate"] is not None for rate in rates):
        was, now = (rate["rate"] for rate in rates if rate is not None)
        yield f"WER: {100 * was:.2f} → {100 * now:.2f} %"
    higher = {name for one in metrics for name, about in one.figures.items() if about.better == "higher"}
    lead = next((one["figure"] for one in changes if one["figure"] in higher), "")
    worst = sorted(paired(old, new), key=lambda pair: _lost(*pair, lead), reverse=True)
    for was, now in [pair for pair in worst if _lost(*pair, lead) > (False, 0, 0.0)][:top]:
        yield f"{_lost(was, now, lead)[1]:+4d} words  {now.id}" + (f"  {now.error}" if now.error else "")
        if lead in was.figures and lead in now.figures:
            yield f"      {lead}: {was.figures[lead]:.3g} → {now.figures[lead]:.3g}"
        if now.text:
            yield f"      said  {now.text}"
            yield f"      {old.name}: {was.pred_text}"
            yield f"      {new.name}: {now.pred_text}"


def _lost(was: Restoration, now: Restoration, lead: str) -> tuple[bool, int, float]:
    """Whether it fails now, how many words more are wrong, and how much lower the leading figure is."""
    words = [wrong_words(item) for item in (was, now)]
    had = was.figures.get(lead), now.figures.get(lead)
    lower = 0.0 if had[0] is None or had[1] is None else had[0] - had[1]
    return now.error is not None and was.error is None, words[1] - words[0], lower


def _said(item: ClassPrediction) -> str:
    if item.error is not None:
        return f"no answer: {item.error}"
    shown = predicted(item) or tuple(name for name, _ in item.top[:1])
    return ", ".join(f"{name} {item.probabilities[name]:.2f}" for name in shown)
