"""Scores as lines for a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..terminal.door import printable
from .gates.limits import percent


def table(scores: Mapping[str, Any]) -> str:
    """One line a run, then one line a pair of runs; of words also how texts were made comparable."""
    pairs = [difference(one) for one in scores["comparisons"]]
    if scores["task"] == "classify":
        return _lines([_CLASSES, *(_class_run(name, run) for name, run in scores["runs"].items()), *pairs])
    lead, other = ("cer", "wer") if scores["metric"] == "cer" else ("wer", "cer")
    head = _WORDS.format(lead=f"{_NAMES[lead]} %", other=f"{_NAMES[other]} %")
    lines = [_run(name, run, lead, other) for name, run in scores["runs"].items()]
    return _lines([head, *lines, *pairs, *_harm(scores.get("harm")), normalised(scores["normaliser"])])


def _harm(found: Mapping[str, Any] | None) -> list[str]:
    """`on clean speech, other.jsonl: base → phone, ...`, a line for each adapter."""
    if found is None:
        return []
    return [f"on clean speech, {found['manifest']}: {difference(one)}" for one in found["comparisons"]]


def _lines(lines: Iterable[str]) -> str:
    """Each stays one line, whatever a run is called."""
    return "\n".join(map(printable, lines))


def normalised(normaliser: Mapping[str, Any]) -> str:
    """`normaliser auto 2: english for 90 utterances, marks for 10`."""
    met = [f"{rule} for {n} utterances" for rule, n in normaliser["met"].items() if rule != normaliser["id"]]
    return f"normaliser {normaliser['id']} {normaliser['version']}" + (f": {', '.join(met)}" if met else "")


def difference(found: Mapping[str, Any]) -> str:
    """`base → phone, 100 utterances: 71 better, 4 worse; ΔWER -42.1 points (-47.0 to -38.2), p 0.0002`."""
    a, b, n, better, worse = (found[name] for name in ("a", "b", "n", "better", "worse"))
    of_classes = "mcnemar_p" in found
    words = f"{a} → {b}, {n} {'clips' if of_classes else 'utterances'}: {better} better, {worse} worse"
    if found["delta"] is not None:
        delta, low, high = (100 * found[name] for name in ("delta", "low", "high"))
        change = f"Δ{_NAMES[found['metric']]} {delta:+.2f} points ({low:+.2f} to {high:+.2f})"
        words += f"; {change}, p {found['p']:.2g}"
    return words + (f"; McNemar p {found['mcnemar_p']:.2g}" if of_classes else "")


_NAMES = {"wer": "WER", "cer": "CER", "accuracy": "accuracy", "map": "mAP"}
_WORDS = f"{'run':<24} {'n':>6} {{lead:>7}} {'interval':>15} {{other:>7}} {'S/D/I':>16} {'RTFx':>7}"
_CLASSES = (
    f"{'run':<24} {'n':>6} {'acc. %':>7} {'interval':>15} {'F1 %':>7} {'mAP %':>7} {'ECE %':>7} "
    f"{'folds':>13} {'RTFx':>7}"
)


def _run(name: str, run: Mapping[str, Any], lead: str, other: str) -> str:
    rate = run[lead]
    errors = f"{rate['substitutions']}/{rate['deletions']}/{rate['insertions']}"
    line = f"{name:<24.24} {run['n']:>6} {_cell(percent(run, lead)):>7} {_interval(rate):>15}"
    line += f" {_cell(percent(run, other)):>7} {errors:>16} {_cell(run['rtfx']):>7}"
    return line + _failed(run)


def _class_run(name: str, run: Mapping[str, Any]) -> str:
    line = (
        f"{name:<24.24} {run['n']:>6} {_cell(percent(run, 'accuracy')):>7} {_interval(run['accuracy']):>15}"
    )
    line += "".join(f" {_cell(percent(run, metric)):>7}" for metric in ("macro_f1", "map", "ece"))
    folds = "–"
    if run["folds"]:
        over = run["folds"]["over_folds"]["accuracy"]
        folds = f"{_cell(_percent(over['mean']))} ± {_cell(_percent(over['deviation']))}"
    return f"{line} {folds:>13} {_cell(run['rtfx']):>7}{_failed(run)}"


def _interval(rate: Mapping[str, Any]) -> str:
    return "–" if rate["low"] is None else f"{100 * rate['low']:.2f}–{100 * rate['high']:.2f}"


def _failed(run: Mapping[str, Any]) -> str:
    return f"  {run['failed']} failed" if run["failed"] else ""


def _percent(rate: float | None) -> float | None:
    return None if rate is None else 100 * rate


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
