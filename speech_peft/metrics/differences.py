"""What changed between two runs, as lines for a terminal: the figure, then what broke, the worst first."""

from collections.abc import Iterator

from . import asr, classify
from .class_predictions import ClassPrediction
from .class_report import badness, predicted
from .classify import SOURCES
from .slices import Options, grouping
from .table import difference


def of_words(old: asr.Run, new: asr.Run, options: Options, top: int) -> Iterator[str]:
    """Utterances by how many errors they gained."""
    runs = [old, new]
    unit = asr.grouping(runs, options.group_by)
    yield difference(asr.compare(old, new, unit, options, asr.headline(runs)))
    before = {item.prediction.id: item for item in old.scored}
    both = [(before[item.prediction.id], item) for item in new.scored if item.prediction.id in before]
    both.sort(key=lambda pair: pair[0].words.errors - pair[1].words.errors)
    for was, now in both[:top]:
        if was.words.errors != now.words.errors:
            yield f"{now.words.errors - was.words.errors:+4d}  {now.prediction.id}"
            yield f"      said  {now.prediction.text}"
            yield f"      {old.name}: {was.prediction.pred_text}"
            yield f"      {new.name}: {now.prediction.pred_text}"


def of_classes(old: classify.Run, new: classify.Run, options: Options, top: int) -> Iterator[str]:
    """Clips that broke, the most confidently wrong first, then those that were mended."""
    unit = grouping([*old.predictions, *new.predictions], options.group_by, SOURCES)
    yield difference(classify.compare(old, new, unit, options))
    before = {item.id: item for item in old.predictions}
    both = [(before[item.id], item) for item in new.predictions if item.id in before]
    changed = [(was, now) for was, now in both if _right(was) != _right(now)]
    changed.sort(key=lambda pair: (_right(pair[1]), -badness(pair[1])))
    for was, now in changed[:top]:
        yield f"{'mended' if _right(now) else 'broke '}  {now.id}"
        yield f"        is {now.label}"
        yield f"        {old.name}: {_said(was)}"
        yield f"        {new.name}: {_said(now)}"


def _right(item: ClassPrediction) -> bool:
    return item.error is None and frozenset(predicted(item)) == item.labels


def _said(item: ClassPrediction) -> str:
    if item.error is not None:
        return f"no answer: {item.error}"
    shown = predicted(item) or tuple(name for name, _ in item.top[:1])
    return ", ".join(f"{name} {item.probabilities[name]:.2f}" for name in shown)
