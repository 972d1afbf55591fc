"""Limits on a `scores.json`: what a build or a nightly job asks of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError, did_you_mean
from ...files import json_text
from .gate import Gate

MOST_BYTES = 200_000_000
"""Of a scores.json: a million slices."""


# Option of `bench check` -> the task it limits (None: words and classes), its name for people, its key in a
# run. Restoration has too many figures for an option each: `restoration_gate`.
FIGURES: Mapping[str, tuple[str | None, str, str]] = {
    "max_wer": ("asr", "WER", "wer"),
    "max_cer": ("asr", "CER", "cer"),
    "min_accuracy": ("classify", "accuracy", "accuracy"),
    "min_macro_f1": ("classify", "macro-F1", "macro_f1"),
    "min_map": ("classify", "mAP", "map"),
    "max_ece": ("classify", "ECE", "ece"),
    "min_rtfx": (None, "RTFx", "rtfx"),
}


def gates(run: Mapping[str, Any], limits: Mapping[str, float | None], task: str = "asr") -> list[Gate]:
    """The limits that were asked for, by their names in FIGURES; rates in percent."""
    found = []
    for option, limit in limits.items():
        if limit is None:
            continue
        of_task, name, key = FIGURES[option]
        if of_task not in (None, task) or task == "restore":
            raise ConfigError(
                f"--{option.replace('_', '-')}: limits scores of {of_task or 'words and classes'}, and these "
                f"are of {task}" + ("; use --min, --max and --min-gain" if task == "restore" else "")
            )
        value = run[key] if key == "rtfx" else percent(run, key)
        found.append(Gate(name, value, limit, at_most=option.startswith("max")))
    return found


def against(document: Mapping[str, Any], name: str, baseline: Path, max_regression: float) -> Gate:
    """Not worse by more than `max_regression` points than that run of an earlier score (else its last run).

    What is compared is what leads: of recognition the WER, or the CER of scripts without spaces; of
    classification the accuracy, or mAP of several classes; of restoration a figure in its own unit.
    """
    earlier = read(baseline)
    if earlier["task"] != document["task"]:
        raise ConfigError(
            f"{baseline}: holds scores of {earlier['task']}, and the others are of {document['task']}"
        )
    before = pick(earlier, name if name in earlier["runs"] else None, baseline)[1]
    if document["task"] == "restore":
        from . import restoration as restoration_gate

        return restoration_gate.against(document, name, before, baseline, max_regression)
    if document["task"] == "classify":
        return _against_classes(document, name, earlier, before, baseline, max_regression)
    if _rules(earlier) != _rules(document):
        raise ConfigError(
            f"{baseline}: its normaliser {earlier['normaliser']} is not {document['normaliser']}; "
            "score both again with one of them, and with --language where rows name none"
        )
    metric = document["metric"]
    was = percent(before, metric)
    if was is None:
        raise ConfigError(f"{baseline}: has no {metric.upper()}, for its references hold no words")
    now = percent(document["runs"][name], metric)
    return Gate(f"{metric.upper()} against {baseline}", now, was + max_regression)


def _rules(document: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """What made texts comparable: the normaliser, and which of its rules they met."""
    normaliser = document["normaliser"]
    return normaliser["id"], normaliser["version"], sorted(normaliser.get("met", ()))


def _against_classes(
    document: Mapping[str, Any],
    name: str,
    earlier: Mapping[str, Any],
    before: Mapping[str, Any],
    baseline: Path,
    max_regression: float,
) -> Gate:
    if sorted(earlier["labels"]) != sorted(document["labels"]) or earlier["metric"] != document["metric"]:
        raise ConfigError(f"{baseline}: is about other classes; a figure on them is no baseline for these")
    metric = document["metric"]
    was = percent(before, metric)
    if was is None:
        raise ConfigError(f"{baseline}: has no {metric}")
    now = percent(document["runs"][name], metric)
    return Gate(f"{metric} against {baseline}", now, was - max_regression, at_most=False)


def read(path: Path) -> dict[str, Any]:
    """A `scores.json`."""
    document = json_text.read_object(path, MOST_BYTES)
    if not document.get("runs") or "task" not in document:
        raise ConfigError(f"{path}: not a scores.json; expected an object with 'runs' and 'task'")
    return document


def pick(document: Mapping[str, Any], run: str | None, path: Path) -> tuple[str, dict[str, Any]]:
    """A run by its name; without one the last, which is the one in question."""
    name = run or list(document["runs"])[-1]
    if name not in document["runs"]:
        raise ConfigError(f"{path}: no run is called {name!r}. {did_you_mean(name, document['runs'])}")
    return name, document["runs"][name]


def percent(run: Mapping[str, Any], metric: str) -> float | None:
    rate = run[metric]["rate"]
    return None if rate is None else 100 * rate
