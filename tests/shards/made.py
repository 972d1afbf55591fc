"""A verb that needs no model: rows to shards, with what a test wants to go wrong."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from speech_peft.audio import io
from speech_peft.folders.inputs import Job
from speech_peft.folders.outcomes.outcome import Outcome
from speech_peft.folders.progress import Quiet
from speech_peft.folders.runner import Policy
from speech_peft.shards import marks, run
from speech_peft.shards.blocks import Cut
from speech_peft.shards.work import Task

SUFFIXES = frozenset({".wav"})


def upper(jobs: Iterable[Job]) -> Iterator[Outcome]:
    for job in reversed(list(jobs)):  # outcomes come in any order
        if "bad" in job.relpath:
            yield Outcome(job, error="is noise", stage="decode")
        else:
            yield Outcome(job, {"txt": job.relpath.upper()}, audio_seconds=1.0)


def manifest(folder: Path, rows: int = 10, bad: Sequence[int] = ()) -> Path:
    """A manifest of rows that share one recording."""
    folder.mkdir(parents=True, exist_ok=True)
    io.save(folder / "a.wav", np.zeros(160, np.float32), 16_000)
    path = folder / "rows.jsonl"
    names = [f"{'bad' if row in bad else 'row'}-{row:04}" for row in range(rows)]
    path.write_text("".join(json.dumps({"id": name, "audio": "a.wav"}) + "\n" for name in names))
    return path


def task(
    out: Path | str,
    shards: int = 3,
    format: str = "tar",
    settings: str = "s",
    work: Callable[..., Any] = upper,
    extensions: tuple[str, ...] = ("txt",),
) -> Task:
    terms = marks.Terms("transcribe", settings, shards, format, extensions)
    return Task(str(out), terms, lambda: (SimpleNamespace(notes=[]), work))


def go(
    path: Path | str, out: Path | str, policy: Policy | None = None, **more: Any
) -> tuple[int, dict[str, Any]]:
    asked = task(out, **more)
    code = run.run(asked, Cut([str(path)], SUFFIXES, asked.terms.shards), Quiet(), policy or Policy())
    return code, json.loads(asked.store.read(".speech_peft/summary.json"))
