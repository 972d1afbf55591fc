"""Classifiers run over labelled clips and timed; of a cross-validation each adapter on its own fold."""

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...audio.rows.row import Row
from ...core.saved.hub import locate
from ...errors import ConfigError, did_you_mean
from ...files import json_text
from ...predictions import classes as class_predictions
from ...predictions import run as runs
from ...predictions.classes import ClassPrediction
from .. import heldout
from ..scores.classify import Run
from .asr import free_name, hardware, identity

_WARM_UP = 4  # clips heard before the clock starts: caches, thread pools, lazy kernels
FOLD = "{fold}"
Evaluate = Callable[[Sequence[Row]], list[ClassPrediction]]


@dataclass(frozen=True)
class Part:
    """An adapter and the clips that it is tested on."""

    adapter: Path
    rows: tuple[Row, ...]
    fold: str | None = None


@dataclass(frozen=True)
class System:
    """What is measured: one adapter on every clip, or the adapters of a cross-validation on a fold each."""

    name: str
    parts: tuple[Part, ...]
    fold_column: str | None = None


@dataclass(frozen=True)
class Settings:
    """What all systems of one benchmark share."""

    device: str = "cpu"
    weights: str | None = None
    """Address of the backbone; None is the adapter's own."""
    window_seconds: float | None = None
    hop_seconds: float | None = None
    batch_seconds: float | None = None


def open_evaluate(adapter: Path, settings: Settings) -> Evaluate:
    """The one place that knows how a classifier is made."""
    from ...classify.classifier import Classifier, evaluate

    lengths = {name: value for name, value in asdict(settings).items() if name.endswith("_seconds")}
    given = {name: value for name, value in lengths.items() if value is not None}
    classifier = Classifier([adapter], settings.weights, device=settings.device, **given)
    return lambda rows: evaluate(classifier, rows)


def wanted(given: Iterable[str]) -> dict[str, list[str]]:
    """`--where fold=1,2 --where fold=3` as `{fold: [1, 2, 3]}`."""
    found: dict[str, list[str]] = {}
    for one in given:
        column, equals, values = one.partition("=")
        if not (equals and column and values):
            raise ConfigError(f"--where {one}: expected COLUMN=VALUE or COLUMN=VALUE,VALUE")
        found.setdefault(column, []).extend(value.strip() for value in values.split(","))
    return found


def systems(
    rows: Sequence[Row], adapters: Sequence[str], folds: Sequence[str] = (), fold_column: str = "fold"
) -> list[System]:
    """The systems of `NAME=FOLDER` and of `NAME=PATTERN` with `{fold}`; without a NAME by their folders.

    >>> systems(rows, ["probe=runs/probe/pets"], ["lora=runs/lora-{fold}/pets"])      # doctest: +SKIP
    """
    if not adapters and not folds:
        raise ConfigError("nothing to measure: give --adapter FOLDER, or --folds PATTERN with {fold} in it")
    taken: set[str] = set()
    found = []
    for given in adapters:
        name, folder = named(given)
        found.append(System(free_name(name or folder, taken), (Part(locate(folder), tuple(rows)),)))
    for given in folds:
        name, pattern = named(given)
        if FOLD not in pattern:
            raise ConfigError(
                f"--folds {given}: expected {FOLD} in it, such as runs/lora-{FOLD}/pets; "
                "--adapter is for one adapter on all clips"
            )
        parts = tuple(
            Part(_of_fold(pattern, fold, fold_column), tuple(some), fold)
            for fold, some in by_fold(rows, fold_column).items()
        )
        found.append(System(free_name(name or _without_fold(pattern), taken), parts, fold_column))
    return found


def named(given: str) -> tuple[str, str]:
    """Name and folder of `NAME=FOLDER`; the name is "" where there is none."""
    name, equals, folder = given.partition("=")
    if equals and re.fullmatch(r"[\w.-]+", name) and not Path(given).exists():
        return name, folder
    return "", given


def by_fold(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    """The rows of each fold, in the order of its number or name."""
    folds: dict[str, list[Row]] = {}
    for row in rows:
        value = row.speaker if column == "speaker" else row.extra.get(column)
        if value in (None, ""):
            names = {name for other in rows for name in other.extra} | {"speaker"}
            raise ConfigError(
                f"row {row.id!r} has no {column!r} that would say its fold. {did_you_mean(column, names)}"
            )
        folds.setdefault(str(value), []).append(row)
    return {fold: folds[fold] for fold in sorted(folds, key=_natural)}


def multi_label(chosen: Sequence[System]) -> bool:
    """Whether clips may be of several classes; systems that disagree about it cannot be compared."""
    heads = {part.adapter: classifier_head(part.adapter) for system in chosen for part in system.parts}
    several = [folder for folder, head in heads.items() if head.get("multi_label")]
    if several and len(several) < len(heads):
        other = next(folder for folder in heads if folder not in several)
        raise ConfigError(f"{several[0]} is multi-label and {other} is not; measure them apart")
    return bool(several)


def check(chosen: Sequence[System]) -> dict[str, str]:
    """What is known of each system's training data: `ok`, or why nobody can tell.

    Refuses, before anything is loaded, an adapter that has seen its test clips, one that is no classifier,
    and a label that it does not know.
    """
    for part in (part for system in chosen for part in system.parts):
        head = classifier_head(part.adapter)
        for row in part.rows:
            cell = row.label or ""
            for label in class_predictions.split(cell) if head.get("multi_label") else [cell]:
                if label not in head["labels"]:
                    raise ConfigError(
                        f"row {row.id!r}: label {label!r} was not among the {len(head['labels'])} that "
                        f"{part.adapter} learned. {did_you_mean(label, head['labels'])}"
                    )
    return {
        system.name: "; ".join(dict.fromkeys(heldout.check(part.adapter, part.rows) for part in system.parts))
        for system in chosen
    }


def heard_as(chosen: Sequence[System], rows: Sequence[Row]) -> list[System]:
    """The same systems on other sound of the same clips, by their ids."""
    other = {row.id: row for row in rows}
    return [
        replace(
            system,
            parts=tuple(
                replace(part, rows=tuple(other[row.id] for row in part.rows)) for part in system.parts
            ),
        )
        for system in chosen
    ]


def classifier_head(folder: Path) -> dict[str, Any]:
    """The settings of the classifier in an adapter folder, read without loading anything."""
    content = json_text.read_object(folder / "adapter.json")
    heads = content.get("head_config") or {}
    head = heads.get("classify") if isinstance(heads, dict) else None
    if not isinstance(head, dict) or not head.get("labels"):
        names = ", ".join(map(str, heads)) if isinstance(heads, dict | list) else ""
        raise ConfigError(
            f"{folder}: is no classifier; its heads: {names or 'none'}. Train one with task.name=classify"
        )
    return head


def measure(system: System, settings: Settings, held_out: str = "") -> Run:
    """Every clip, by the adapter it belongs to. Loading and a first few clips are not in the time."""
    seconds, found = 0.0, dict[str, ClassPrediction]()
    for part in system.parts:
        evaluate = open_evaluate(part.adapter, settings)
        evaluate(part.rows[:_WARM_UP])
        start = time.perf_counter()
        answers = evaluate(part.rows)
        seconds += time.perf_counter() - start
        found |= {answer.id: answer for answer in answers}
    rows = [row for part in system.parts for row in part.rows]
    known = {part.fold or "": identity(part.adapter) for part in system.parts}
    config = {
        "adapters": {part.fold or "": str(part.adapter) for part in system.parts},
        "adapter_sha256": {fold: one.get("adapter_sha256") for fold, one in known.items()},
        "model": next((one["model"] for one in known.values() if one), None),
        **asdict(settings),
        "held_out": held_out,
        "warm_up_clips": _WARM_UP,
    }
    if system.fold_column is not None:
        config["fold_column"] = system.fold_column
    return Run(system.name, tuple(found[row.id] for row in rows), seconds, config, hardware(settings.device))


def save(folder: Path, run: Run) -> None:
    """`preds.jsonl` and `run.json`."""
    runs.save(folder, run, class_predictions.dumps)


def _of_fold(pattern: str, fold: str, column: str) -> Path:
    folder = pattern.replace(FOLD, fold)
    try:
        return locate(folder)
    except ConfigError as error:
        raise ConfigError(
            f"--folds {pattern}: no adapter for {column} {fold}: {error}. Train it, or leave the fold out: "
            f"--where {column}=..."
        ) from error


def _without_fold(pattern: str) -> str:
    """`lora-pets` of `runs/lora-{fold}/pets`: what tells cross-validations apart."""
    parts = Path(os.path.normpath(pattern)).parts
    first = next((at for at, part in enumerate(parts) if FOLD in part), len(parts) - 1)
    names = [re.sub(r"[-_.]?(fold)?[-_.]?\{fold\}", "", part).strip("-_.") for part in parts[first:]]
    return "-".join(name for name in names if name) or "folds"


def _natural(name: str) -> tuple[Any, ...]:
    """Fold 10 comes after fold 9."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)
    )
