"""What a run may go on from: a state of the same recipe, the same weights and the same clips."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..audio.rows.row import Row
from ..errors import ConfigError, SpeechPeftError
from ..recipe.recipe import Recipe
from .processes import is_first
from .state import newest

if TYPE_CHECKING:
    from .data.data import SpeechData
    from .tasks.base import Task

LOCK = ".lock"
PATIENCE_SECONDS = 10.0
"""Loaders of a run that was killed notice within 5 s, and hold its lock till then."""
IDLE = (
    "out",
    "data.cache.folder",
    "data.preload_hours",
    "data.workers",
    "trainer.log_every_steps",
    "trainer.max_minutes",
    "trainer.max_steps",
    "trainer.recompute",
    "trainer.save_every_seconds",
    "trainer.save_every_steps",
)
"""What changes no step: places, length, reports, memory."""
ROWS = ("data.train", "data.valid")
"""Where clips are listed; which clips they are is in the state itself."""


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Keeps `out` to one run at a time; raises SpeechPeftError, after a moment, in the second."""
    if not is_first():
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise SpeechPeftError(
            f"{out}: another training run is writing there. Wait for it, or give out=ANOTHER_FOLDER"
        ) from None
    try:
        yield
    finally:
        lock.release()


def checkpoint(recipe: Recipe) -> tuple[Path, dict[str, Any]] | None:
    """The newest state in `out` and its file; refused when the recipe has changed since."""
    found = newest(Path(recipe.out))
    if found is None:
        return None
    path, state = found
    before, now = state["run"]["recipe"], recipe.model_dump(mode="json")
    if changed := changes(before, now, (*IDLE, *(ROWS if state["run"].get("clips") else ()))):
        raise ConfigError(
            f"{path} was made by another recipe: {'; '.join(changed)}. "
            "Give out=ANOTHER_FOLDER, or --resume never to start afresh"
        )
    return found


def changes(before: dict[str, Any], now: dict[str, Any], idle: Sequence[str] = IDLE) -> list[str]:
    """What differs between two recipes, by dotted key; a folder that moved with its run is the same."""

    def walk(old: Any, new: Any, path: str) -> Iterator[str]:
        if path in idle or old == new:
            return
        if isinstance(old, dict) and isinstance(new, dict):
            for key in [*old, *(key for key in new if key not in old)]:
                yield from walk(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        elif not (path.endswith(".from") and _beside(old, before) == _beside(new, now)):
            yield f"{path} was {old!r}, is {new!r}"

    return list(walk(before, now, ""))


def _beside(folder: Any, recipe: dict[str, Any]) -> str:
    """How a folder lies to the run's own, which stays the same where both are moved."""
    return os.path.relpath(str(folder), recipe["out"])


def clips(data: SpeechData) -> dict[str, Any]:
    """Which clips a run learns from and is validated on: their number, and a digest in their order.

    Of what they are and where in a recording they lie, not of where the recordings are: those may be moved.
    """
    parts = {"train": data.train_clips, "valid": data.valid_clips}
    return {name: _listed(part.rows) for name, part in parts.items() if part is not None}


def _listed(rows: Sequence[Row]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for row in rows:
        what = [row.id, row.text, row.label, row.start, row.duration]
        digest.update(json.dumps(what, ensure_ascii=True).encode() + b"\n")
    return {"clips": len(rows), "sha256": digest.hexdigest()}


def check_same(path: Path, state: dict[str, Any], task: Task) -> None:
    """Raises ConfigError where weights or clips are not those that the state was trained with."""
    run, again = state["run"], "Give out=ANOTHER_FOLDER, or --resume never to start afresh"
    base, card = run.get("base"), task.backbone.card()
    if base and card.sha256 and base != card.sha256:
        raise ConfigError(
            f"{path} was trained on other weights: sha256 {base[:12]}, and {card.id} is {card.sha256[:12]}. "
            f"{again}"
        )
    for part, was in (run.get("clips") or {}).items():
        found = task.clips.get(part)
        if found != was:
            how = "none" if found is None else f"{found['clips']}"
            other = " others" if found and found["clips"] == was["clips"] else ""
            raise ConfigError(
                f"data.{part}: {path} was trained with {was['clips']} clips, and now there are {how}{other}; "
                f"going on would learn from other clips than it says. {again}"
            )
