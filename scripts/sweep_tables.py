"""What sweeps measured, docs/measured/TASK.json, as tables in markdown; names of methods are links."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speech_peft.registry import METHODS
from speech_peft.sweep.table import figure, markdown, number

Sweeps = Mapping[str, dict[str, Any]]
LOWER_IS_BETTER = ("wer", "cer")


def summaries(folder: Path) -> dict[str, dict[str, Any]]:
    """A summary.json each, by task."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def link(name: str, text: str | None = None, page: str = "") -> str:
    return f"[`{text or name}`]({page}#{name})"


def owner(cell: str) -> str | None:
    """The method of a sweep's cell, whose name begins with it: low_bit_lora is of low_bit."""
    return max((name for name in METHODS if f"{cell}_".startswith(f"{name}_")), key=len, default=None)


def reached(name: str, sweeps: Sweeps) -> str:
    """The best result of a method in each sweep."""
    best = []
    for task, found in sweeps.items():
        own = [entry for entry in found["methods"] if owner(entry["method"]) == name]
        ranked = [(rank, entry) for entry in own if (rank := _rank(entry, found)) is not None]
        if ranked:
            _, entry = min(ranked, key=lambda pair: pair[0])
            best.append(f"{task} {figure(entry[found['metric']], 3)}")
    return "; ".join(best) or "–"


def compared(sweeps: Sweeps, page: str = "") -> str:
    """All methods, the best of the first sweep first: what each reached, and what it cost there."""
    names = dict.fromkeys(entry["method"] for found in sweeps.values() for entry in found["methods"])
    by_task = {task: {entry["method"]: entry for entry in found["methods"]} for task, found in sweeps.items()}
    rows: list[tuple[list[float], list[str]]] = []
    for name in names:
        entries = {task: of[name] for task, of in by_task.items() if name in of and of[name]["seeds"]}
        if not entries:
            continue
        reach = [
            figure(entries[task][found["metric"]], 3) if task in entries else "–"
            for task, found in sweeps.items()
        ]
        ranks = [_rank(entries[task], found) if task in entries else None for task, found in sweeps.items()]
        of = owner(name)
        cells = [link(of, name, page) if of else name, *reach, *_costs(next(iter(entries.values())))]
        rows.append(([float("inf") if rank is None else rank for rank in ranks], cells))
    tasks = [f"{task}, {found['metric'].replace('wer', 'WER')}" for task, found in sweeps.items()]
    head = ["method", *tasks, "trains", "KB", "CPU s/step", "infer x"]
    return table(head, [cells for _, cells in sorted(rows, key=lambda row: row[0])])


def measured(sweeps: Sweeps, folder: Path) -> str:
    """A table for each sweep, and its figure where `folder` has one; empty while there is none."""
    parts = ["\n## What each reached\n"] if sweeps else []
    for task, found in sweeps.items():
        lines = []
        for line in markdown(found).splitlines():
            cell = line.strip("| ").partition(" ")[0]
            of = owner(cell)
            lines.append(line.replace(f"| {cell} ", f"| {link(of, cell)} ", 1) if of else line)
        parts.append("\n".join([f"\n### {task}\n", *lines, ""]))
        if (folder / f"{task}_bytes.svg").exists():
            parts.append(f"\n![By the bytes of a folder]({folder.name}/{task}_bytes.svg)\n")
    return "".join(parts)


def between(text: str, mark: str, content: str) -> str:
    """The text with what stands between `<!-- mark -->` and `<!-- /mark -->` replaced."""
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{content}\n{found[2]}", text, flags=re.DOTALL)


def _rank(entry: Mapping[str, Any], found: Mapping[str, Any]) -> float | None:
    """Lower is better."""
    value = entry[found["metric"]]["mean"]
    return value if value is None or found["metric"] in LOWER_IS_BETTER else -value


def _costs(entry: Mapping[str, Any]) -> list[str]:
    trained = sum(entry[f"{part}_parameters"] for part in ("adapter", "head", "base"))
    return [
        number(trained, ",.0f"),
        number(entry["adapter_bytes"], ",.0f", 1e-3),
        number(entry["step_cpu_seconds"], ".2f"),
        number(entry["overhead"], ".2f"),
    ]
