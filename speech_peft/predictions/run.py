"""A run: one system on one test set, whatever the task. Pages, differences and files are made of runs.

out/phone/preds.jsonl    its predictions, a line each, in the form of the task
out/phone/run.json       {"seconds": 31.4, "config": {...}, "hardware": {...}, "measured": {...}}
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from ..files import json_text
from ..files.atomic import write_text
from .words import Item


@dataclass(frozen=True)
class Run(Generic[Item]):
    """What one system made of every recording, and what that took."""

    name: str
    predictions: tuple[Item, ...]
    """Of recognition, once they are scored: with their errors."""
    seconds: float | None = None
    """Wall time of the work, warm-up excluded. None: words and classes go by the predictions' own times; of
    restoration nothing was run."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Of classification `fold_column`, if there is one, names the column whose values are the folds of a
    cross-validation, every clip by the adapter of its own fold."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What was measured when: manifest, rows, degradation, seed, date, version. Runs of older versions and
    those of other programs have none of it."""


def paired(a: Run[Item], b: Run[Item]) -> list[tuple[Item, Item]]:
    """What each of two systems made of the recordings that both have, in the order of b."""
    first = {item.id: item for item in a.predictions}
    return [(first[item.id], item) for item in b.predictions if item.id in first]


def by_recording(runs: Sequence[Run[Item]]) -> list[dict[str, Item]]:
    """Every recording as `{run: prediction}`, with the runs that have it, the one in question last."""
    table: dict[str, dict[str, Item]] = {}
    for run in runs:
        for item in run.predictions:
            table.setdefault(item.id, {})[run.name] = item
    return list(table.values())


def first(row: Mapping[str, Item]) -> Item:
    """A prediction of a row of the above: what it is about is the same for every run."""
    return next(iter(row.values()))


def save(folder: Path, run: Run[Item], dumps: Callable[[Sequence[Item]], str]) -> None:
    """`preds.jsonl` by the task's `dumps`, and `run.json` with what the predictions alone do not tell."""
    write_text(folder / "preds.jsonl", dumps(run.predictions))
    parts = {"config": run.config, "hardware": run.hardware, "measured": run.measured}
    about = {"seconds": run.seconds, **{name: dict(part) for name, part in parts.items()}}
    write_text(folder / "run.json", json_text.write(about, indent=2, default=str) + "\n")


def about(file: Path) -> dict[str, Any]:
    """What `run.json` says beside a `preds.jsonl`, by the fields of a run; empty where there is none."""
    beside = file.with_name("run.json")
    return json_text.read_object(beside) if beside.is_file() else {}
