"""Recipes of several stages: the parts that differ, by name, beside what all of them share.

    out: runs/whisper_mask
    backbone: {...}                       # of every stage
    stages:
      features: {adapters: {cleaner: {method: bottleneck, ...}}, task: {...}, trainer: {...}}
      finetune: {adapters: {cleaner: {from: features/cleaner}}, ...}

A stage is a whole recipe: the shared parts, its own on top of them field by field, `out` a folder of its
name. A `from` that begins with the name of an earlier stage means what that one leaves behind. `key=value`
changes every stage, `stages.features.key=value` one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigError, did_you_mean
from ..files.dotted import override
from .parts import FOLDER_NAME_RULE, is_folder_name

Tree = dict[str, Any]
WHOLE = frozenset({"adapters", "decoder"})
"""Keys whose value in a stage replaces the shared one: their fields belong together."""


def split(tree: Tree, overrides: Sequence[str]) -> dict[str, Tree]:
    """The recipe of each stage by its name, in order; a recipe without stages is the only one, named ''."""
    stages = tree.get("stages")
    if stages is None:
        whole = copy.deepcopy(tree)
        for given in overrides:
            override(whole, given)
        return {"": whole}
    if not isinstance(stages, dict) or not stages:
        raise ConfigError("stages: expected names with the parts of each, {features: {...}, ...}")
    parts = cast("dict[str, Any]", stages)
    shared = {key: value for key, value in tree.items() if key != "stages"}
    own = [given for given in overrides if given.startswith("stages.")]
    for given in own:
        _check_name(given.split("=")[0], parts)
    found: dict[str, Tree] = {}
    for name, part in parts.items():
        if not (isinstance(name, str) and is_folder_name(name)):
            raise ConfigError(f"stages: {name!r} names a folder; {FOLDER_NAME_RULE}")
        if not isinstance(part, dict):
            raise ConfigError(f"stages.{name}: expected parts of a recipe, got {part!r}")
        recipe = _over(shared, cast("Tree", part))
        for given in overrides:
            if given not in own:
                override(recipe, given)
        for given in own:
            if given.startswith(start := f"stages.{name}."):
                override(recipe, given.removeprefix(start))
        recipe["out"] = str(Path(str(recipe.get("out", ""))) / name)
        _resolve(recipe, found)
        found[name] = recipe
    return found


def _check_name(key: str, stages: Mapping[str, Any]) -> None:
    _, name, *rest = key.split(".")
    if name not in stages or not rest:
        raise ConfigError(f"{key}: no stage is called {name!r}. {did_you_mean(name, stages)}")


def _over(shared: Any, own: Any, key: str = "") -> Any:
    """A copy of `shared` with `own` on top, field by field."""
    if not isinstance(shared, dict) or not isinstance(own, dict) or key in WHOLE:
        return copy.deepcopy(own)
    merged = copy.deepcopy(shared)
    for name, value in own.items():
        merged[name] = _over(shared.get(name), value, name)
    return merged


def _resolve(recipe: Tree, earlier: Mapping[str, Tree]) -> None:
    """Puts the folders of earlier stages where their names stand."""
    adapters, task = recipe.get("adapters"), recipe.get("task")
    named: list[Any] = list(adapters.values()) if isinstance(adapters, dict) else []
    named += [task.get("decoder")] if isinstance(task, dict) else []
    for fields in (fields for fields in named if isinstance(fields, dict)):
        for key in ("from", "weights"):
            if isinstance(fields.get(key), str):
                stage, _, rest = fields[key].partition("/")
                if stage in earlier and rest:
                    fields[key] = str(Path(earlier[stage]["out"]) / rest)
