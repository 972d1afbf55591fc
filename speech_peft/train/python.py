"""Training from Python: a recipe, or its parts as objects, fitted by us or made ready for a trainer of yours.

fit("asr/whisper_parallel", data={"train": dataset, "valid": "valid.jsonl"}, out="runs/tel")
fit(backbone={...}, adapters={"tel": Lora(rank=8)}, task={...}, data={...}, trainer={...}, out="runs/tel")

task, data = build("recipe.yaml")
L.Trainer(max_epochs=5, callbacks=[EarlyStopping("valid_wer")]).fit(task, data)
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.method import Method
from ..errors import ConfigError
from ..recipe import config, stages
from ..recipe.recipe import Recipe
from .fit import Trained, check_parts
from .fit import build as built
from .stages import run

if TYPE_CHECKING:
    from .data.data import SpeechData
    from .tasks.base import Task

PARTS = ("train", "valid")
FOREVER = 1_000_000_000
"""Steps of a recipe that leaves it to the trainer when to end."""


def fit(
    recipe: str | Path | Recipe | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    resume: bool = True,
    callbacks: Sequence[Any] = (),
    **parts: Any,
) -> Trained:
    """Train adapters as a recipe says, as the command does; what it leaves behind: folders, scores, steps.

    `recipe` is a file, a bundled name, a Recipe, or its keys and values. `overrides` are `key=value`, as on
    the command line; `parts` (`data={"train": …}`) are laid over it field by field. In `adapters` a method
    may be an object, `Lora(rank=8)`; `data.train` and `data.valid` may be a manifest, rows, or a Hugging Face
    data set with a column of sound. `callbacks` are Lightning callbacks. A run whose `out` holds a state goes
    on from there, unless `resume` is False.

    Raises ConfigError, one line for each wrong field, before anything is loaded.

    >>> fit("asr/whisper_parallel", ["optim.lr=3e-4"], data={"train": "train.jsonl"})  # doctest: +SKIP
    """
    return run(recipes_of(recipe, overrides, parts), resume, callbacks)


def build(
    recipe: str | Path | Recipe | Mapping[str, Any] | None = None, overrides: Sequence[str] = (), **parts: Any
) -> tuple[Task, SpeechData]:
    """A task and its data for a `lightning.Trainer` of your own, from what `fit` takes too.

    Validation logs `valid_wer` (or `valid_cer`, `valid_error`, ...) and `valid_loss`, training `train_loss`;
    the adapter is saved into the recipe's `out` at the best validation. Steps, epochs, precision, devices and
    checkpoints are the trainer's, and so the recipe's `trainer` may be left out. With several devices give
    `use_distributed_sampler=False`: batches are shared out already.

    >>> task, data = build("recipe.yaml")                                              # doctest: +SKIP
    >>> L.Trainer(max_epochs=5, callbacks=[EarlyStopping("valid_wer")]).fit(task, data)  # doctest: +SKIP
    """
    found = recipes_of(recipe, overrides, {"trainer": {}, **parts}, ends=False)
    if len(found) > 1:
        raise ConfigError(f"the recipe has the stages {', '.join(found)}; build one of them: NAME:STAGE")
    (one,) = found.values()
    from .foreign import prepare

    task, data = built(one, check_parts(one))
    prepare(task, data)
    return task, data


def recipes_of(
    recipe: str | Path | Recipe | Mapping[str, Any] | None,
    overrides: Sequence[str],
    parts: Mapping[str, Any],
    ends: bool = True,
) -> dict[str, Recipe]:
    """The recipes of all stages, '' naming the only one; data sets have become manifests in its `out`.

    Without `ends` a run need not say how long it is.
    """
    tree, wanted = _tree(recipe)
    for name, part in parts.items():
        known = tree.get(name)
        if isinstance(part, Mapping) and isinstance(known, Mapping) and name != "adapters":
            part = {**known, **part}
        tree[name] = part
    if not ends and not {"max_steps", "max_minutes"} & tree["trainer"].keys():
        tree["trainer"] = {**tree["trainer"], "max_steps": FOREVER}
    given = _set_aside(tree)
    tree["adapters"] = _adapters(tree.get("adapters", {}))
    trees = stages.split(tree, overrides)
    found = {name: config.checked(one) for name, one in trees.items() if wanted in ("", name)}
    if not found:
        raise ConfigError(f"the recipe has no stage {wanted!r}; it has {', '.join(trees)}")
    for one in found.values():
        check_parts(one)  # before data sets are written
    _write_manifests(given)
    for one in found.values():
        config.check_there(one)
    return found


def _tree(recipe: Any) -> tuple[dict[str, Any], str]:
    """Keys and values to lay parts over, and the stage that is wanted of them."""
    if recipe is None:
        return {}, ""
    if isinstance(recipe, Recipe):
        return recipe.model_dump(mode="json"), ""
    if isinstance(recipe, Mapping):
        return {key: copy.copy(value) for key, value in recipe.items()}, ""
    if not isinstance(recipe, str | Path):
        raise ConfigError(
            f"recipe: expected a file, a bundled name or keys and values, got {type(recipe).__name__}"
        )
    name, _, wanted = str(recipe).rpartition(":") if not Path(recipe).is_file() else ("", "", "")
    return config.tree_of(name or str(recipe)), wanted if name else ""


def _adapters(adapters: Any) -> Any:
    """As a recipe writes them."""
    if not isinstance(adapters, Mapping):
        return adapters
    return {
        name: {"method": one.name, **one.model_dump(mode="json", exclude_unset=True)}
        if isinstance(one, Method)
        else one
        for name, one in adapters.items()
    }


def _set_aside(tree: dict[str, Any]) -> dict[Path, Any]:
    """Data that is no address: in the tree stands the manifest that it will become, here what is in it."""
    data = tree.get("data")
    if not isinstance(data, Mapping):
        return {}
    data, aside = dict(data), {}
    for part in PARTS:
        thing = data.get(part)
        if thing is None or isinstance(thing, str):
            continue
        if isinstance(thing, Path):
            data[part] = str(thing)
            continue
        if not isinstance(thing, Iterable):
            raise ConfigError(
                f"data.{part}: expected a manifest, rows or a data set, got {type(thing).__name__}"
            )
        manifest = Path(str(tree.get("out", "."))) / "manifests" / f"{part}.jsonl"
        aside[manifest] = thing
        data[part] = str(manifest)
    tree["data"] = data
    return aside


def _write_manifests(given: Mapping[Path, Any]) -> None:
    from ..audio import manifest
    from ..audio.data_set import rows_in

    for path, thing in given.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write(path, rows_in(thing, f"data.{path.stem}"))
