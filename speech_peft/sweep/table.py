"""The table of a sweep: of each method the mean over folds and seeds, and what it costs."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from .grid import Cell
from .results import Row

_COSTS = (
    *("adapter_parameters", "head_parameters", "base_parameters", "adapter_bytes"),
    *("epoch_seconds", "epoch_cpu_seconds", "run_memory_mb", "peak_memory_mb", "peak_gpu_mb", "cell_seconds"),
)


def summary(cells: Sequence[Cell], rows: Mapping[str, Row]) -> dict[str, Any]:
    """The content of summary.json: one entry for each method, and each value of what else varies.

    The headline is accuracy, or the word error rate, or of scripts without spaces that of characters.
    `deviation` is that over the seeds of the means over the folds; a seed with a fold missing is left out of
    both until it is there. `run_memory_mb` is what the peak lies above what the process held before the run:
    libraries, decoded clips, the prefix cache of all runs.
    `overhead` is that of the adapters it was measured on, None where it was on none.
    """
    metrics = _metrics(cells[0].recipe.task.name, rows.values())
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.method, *cell.vary.values()), []).append(cell)
    entries = [_entry(group, rows, metrics) for group in groups.values()]
    full = [entry["adapter_bytes"] for entry in entries if entry["base_parameters"]]
    for entry in entries:
        size = entry["adapter_bytes"]
        entry["bytes_of_full"] = size / max(full) if full and size else None
    done = sum(cell.key in rows and rows[cell.key]["error"] is None for cell in cells)
    failed = sum(cell.key in rows and rows[cell.key]["error"] is not None for cell in cells)
    return {
        "format": 1,
        "metric": metrics[0],
        "cells": len(cells),
        "done": done,
        "failed": failed,
        "methods": entries,
    }


def _metrics(task: str, rows: Iterable[Row]) -> tuple[str, ...]:
    """What is shown, the headline first."""
    if task != "asr":
        return "accuracy", "macro_f1", "map", "ece"
    characters = any(row.get("metric") == "cer" for row in rows)
    return ("cer", "wer") if characters else ("wer", "cer")


def _entry(group: Sequence[Cell], rows: Mapping[str, Row], metrics: Sequence[str]) -> dict[str, Any]:
    found = {cell.key: rows[cell.key] for cell in group if cell.key in rows}
    good = [row for row in found.values() if row["error"] is None]
    by_seed: dict[int, list[Row | None]] = {}
    for cell in group:
        row = found.get(cell.key)
        by_seed.setdefault(cell.seed, []).append(row if row and row["error"] is None else None)
    whole = [[row for row in of_seed if row] for of_seed in by_seed.values() if all(of_seed)]
    entry: dict[str, Any] = {
        "method": group[0].method,
        "vary": dict(group[0].vary),
        "cells": len(group),
        "done": len(good),
        "failed": len(found) - len(good),
        "seeds": len(whole),
    }
    for metric in metrics:
        means = [value for of_seed in whole if (value := _mean(row[metric] for row in of_seed)) is not None]
        entry[metric] = {"mean": _mean(means), "deviation": stdev(means) if len(means) > 1 else None}
    valid = [row["valid"]["value"] for row in good if row["valid"]]
    costs = {name: _known(row[name] for row in good) for name in _COSTS}
    step = _known(_step_cpu_seconds(row) for row in good)
    overhead = _known(row.get("overhead") for row in good)
    return {**entry, "valid": _mean(valid), **costs, "step_cpu_seconds": step, "overhead": overhead}


def _step_cpu_seconds(row: Row) -> float | None:
    """Of one optimiser step: an epoch's, by the epochs and the steps of the run."""
    epoch = row["epoch_cpu_seconds"]
    return None if epoch is None or not row["steps"] else epoch * row["epochs"] / row["steps"]


def _mean(values: Iterable[float | None]) -> float | None:
    """None where one is missing, or there is none."""
    found = list(values)
    return fmean(v for v in found if v is not None) if found and None not in found else None


def _known(values: Iterable[float | None]) -> float | None:
    """The mean of those measured: a run that ended right after a resumption has no epoch to time."""
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def markdown(found: Mapping[str, Any]) -> str:
    """The table of summary.md."""
    metric, entries = found["metric"], found["methods"]
    varied = list(entries[0]["vary"])
    head = ["method", *varied, metric, "seeds", "adapter", "head", "KB", "of full"]
    costs = ["CPU s/epoch", "CPU s/step", "run MB", "infer x"]
    lines = [[*head, *costs], *(_line(entry, metric) for entry in entries)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    left = f", {found['failed']} failed" if found["failed"] else ""
    return (
        "\n".join([rows[0], rule, *rows[1:], "", f"{found['done']} of {found['cells']} cells{left}"]) + "\n"
    )


def _line(entry: Mapping[str, Any], metric: str) -> list[str]:
    return [
        entry["method"],
        *(str(value) for value in entry["vary"].values()),
        figure(entry[metric]),
        str(entry["seeds"]) + (f", {entry['failed']} failed" if entry["failed"] else ""),
        number(_of_base(entry), ",.0f"),
        number(entry["head_parameters"], ",.0f"),
        number(entry["adapter_bytes"], ",.0f", 1e-3),
        number(entry["bytes_of_full"], ".2%"),
        number(entry["epoch_cpu_seconds"], ".2f"),
        number(entry["step_cpu_seconds"], ".3f"),
        number(entry["run_memory_mb"], ",.0f"),
        number(entry["overhead"], ".2f"),
    ]


def _of_base(entry: Mapping[str, Any]) -> float | None:
    """What trains besides the head: the adapter's parameters, or those of a tuned base."""
    own, base = entry["adapter_parameters"], entry["base_parameters"]
    return None if own is None else own + base


def figure(value: Mapping[str, float | None], digits: int = 4) -> str:
    """Mean and deviation."""
    if value["mean"] is None:
        return "-"
    spread = "" if value["deviation"] is None else f" ± {value['deviation']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"


def number(value: float | None, how: str, times: float = 1.0) -> str:
    """A figure of which there may be none."""
    return "-" if value is None else format(value * times, how)
