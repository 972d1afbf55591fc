"""Scores as lines for a terminal."""

from collections.abc import Mapping
from typing import Any

from .gate import percent


def table(scores: Mapping[str, Any]) -> str:
    """One line a run, then one line a pair of runs."""
    head = f"{'run':<24} {'n':>6} {'WER %':>7} {'interval':>15} {'CER %':>7} {'S/D/I':>16} {'RTFx':>7}"
    lines = [_run(name, run) for name, run in scores["runs"].items()]
    return "\n".join([head, *lines, *(difference(one) for one in scores["comparisons"])])


def difference(found: Mapping[str, Any]) -> str:
    """`base → phone, 100 utterances: 71 better, 4 worse; ΔWER -42.1 points (-47.0 to -38.2), p 0.0002`."""
    a, b, n, better, worse = (found[name] for name in ("a", "b", "n", "better", "worse"))
    words = f"{a} → {b}, {n} utterances: {better} better, {worse} worse"
    if found["delta"] is None:
        return words
    delta, low, high = (100 * found[name] for name in ("delta", "low", "high"))
    change = f"Δ{found['metric'].upper()} {delta:+.2f} points ({low:+.2f} to {high:+.2f})"
    return f"{words}; {change}, p {found['p']:.2g}"


def _run(name: str, run: Mapping[str, Any]) -> str:
    wer = run["wer"]
    interval = "–" if wer["low"] is None else f"{100 * wer['low']:.2f}–{100 * wer['high']:.2f}"
    errors = f"{wer['substitutions']}/{wer['deletions']}/{wer['insertions']}"
    line = f"{name:<24.24} {run['n']:>6} {_cell(percent(run, 'wer')):>7} {interval:>15}"
    line += f" {_cell(percent(run, 'cer')):>7} {errors:>16} {_cell(run['rtfx']):>7}"
    return line + (f"  {run['failed']} failed" if run["failed"] else "")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
