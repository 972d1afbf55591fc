"""Runs the stages of a recipe in their order: those that have ended stay, the one under way goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import json_text
from ..terminal.door import complain
from .fit import Trained, check_parts, train
from .processes import is_first

if TYPE_CHECKING:
    from ..recipe.recipe import Recipe

ENDED = "ended.json"
BEGAN = "began_from.json"
PLACES = ("out", "data.cache.folder")
"""What may change of a stage that has ended: where its folders are."""
_RECORDED = {"recipe", "folders", "scores", "steps", "seconds", "base_sha256"}


def run(stages: Mapping[str, Recipe], resume: bool = True, watchers: Sequence[Any] = ()) -> Trained:
    """What the last stage leaves behind; raises Interrupted like `train`, and the same call goes on.

    A stage that has ended is run again only when its recipe or what it begins from is another one than then.
    `watchers` are Lightning callbacks, as in `train`.
    """
    if len(stages) == 1:
        return train(next(iter(stages.values())), resume, watchers)
    resume = resume or not is_first()  # another process of this run: the first one has cleared the way
    for recipe in stages.values():
        check_parts(recipe)  # a typo in the last stage is known before the first one runs
    left: Trained | None = None
    for number, (name, recipe) in enumerate(stages.items(), 1):
        begins_from = _digests(recipe)
        same = resume and _read(recipe, BEGAN) == begins_from
        left = _left_behind(recipe) if same else None
        _say(f"stage {name} ({number} of {len(stages)}){', ended before' if left else ''}")
        if left is None:
            if not same:
                _forget(recipe)
            _write(recipe, BEGAN, begins_from)
            left = train(recipe, same, watchers)
            _write(recipe, ENDED, _record(recipe, left))
    assert left is not None
    return left


def _digests(recipe: Recipe) -> dict[str, str]:
    """What a stage begins from, by where it lies to its own folder; hub ids are fixed by their revision."""
    named: list[Any] = [*recipe.adapters.values(), getattr(recipe.task, "decoder", None)]
    folders = sorted({fields["from"] for fields in named if isinstance(fields, dict) and "from" in fields})
    folders += filter(None, [getattr(named[-1], "weights", None)])  # of a decoder by diffusion
    return {os.path.relpath(folder, recipe.out): _digest(Path(folder)) for folder in folders}


def _digest(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def _forget(recipe: Recipe) -> None:
    """A checkpoint holds frozen adapters too: one of another beginning would bring the old ones back."""
    from .state import forget

    if is_first():
        forget(Path(recipe.out))
        (Path(recipe.out) / ENDED).unlink(missing_ok=True)


def _left_behind(recipe: Recipe) -> Trained | None:
    """Of a stage that has ended under this very recipe and whose folders are still there."""
    record = _read(recipe, ENDED)
    from .resume import changes

    if record is None or not record.keys() >= _RECORDED:
        return None
    if changes(record["recipe"], recipe.model_dump(mode="json"), PLACES):
        return None
    folders = [Path(recipe.out, Path(folder).name) for folder in record["folders"]]
    if not all((folder / "adapter.json").is_file() for folder in folders):
        return None
    from .tasks.scores import Scores

    scores = Scores(**record["scores"]) if record["scores"] else None
    return Trained(folders, scores, record["steps"], record["seconds"], record["base_sha256"])


def _record(recipe: Recipe, left: Trained) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "folders": [str(folder) for folder in left.folders],
        "scores": vars(left.scores) if left.scores else None,
        "steps": left.steps,
        "seconds": left.seconds,
        "base_sha256": left.base_sha256,
    }


def _read(recipe: Recipe, name: str) -> Any:
    path = Path(recipe.out) / name
    return json_text.read_object(path) if path.is_file() else None


def _write(recipe: Recipe, name: str, content: Any) -> None:
    from ..files.atomic import write_text

    if is_first():
        write_text(Path(recipe.out) / name, json_text.write(content, indent=2) + "\n")


def _say(line: str) -> None:
    if is_first():
        complain(line)
