"""Recipes: YAML and `key=value` overrides in, frozen and validated models out.

Nothing here imports torch, so a typo costs a blink. The fields of an adapter belong to its method, those of a
degradation to its step: `methods_of` and `degrader_of` validate them next, before any weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from ..errors import ConfigError, did_you_mean
from ..files import yaml_text
from ..files.dotted import leaves, validate
from . import stages
from .recipe import Recipe
from .tasks import AsrConfig, RestoreConfig

if TYPE_CHECKING:
    from ..audio.degrade import Degrader
    from ..core.method import Method

REQUIRED = "???"
RECIPES = Path(__file__).parent.parent / "recipes"


def bundled() -> dict[str, Path]:
    """The recipes in this package: `asr/whisper_parallel` and so on to their files."""
    files = [path for path in sorted(RECIPES.rglob("*.yaml")) if not path.name.endswith(".grid.yaml")]
    return {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in files}


def find(recipe: str) -> Path:
    """The file of a recipe given by path or by bundled name."""
    if (path := Path(recipe)).is_file():
        return path
    if recipe in (names := bundled()):
        return names[recipe]
    raise ConfigError(
        f"recipe {recipe!r} is neither a file nor a bundled recipe. {did_you_mean(recipe, names)}"
    )


def read(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The validated recipe; every problem of one kind is reported at once, each by its dotted key.

    Of a recipe with stages it is one of them: `restore/whisper_mask:features`.
    """
    every = read_stages(recipe, overrides)
    if len(every) > 1:
        raise ConfigError(
            f"{recipe} has the stages {', '.join(every)}; name one of them: {recipe}:{next(iter(every))}"
        )
    return next(iter(every.values()))


def read_stages(recipe: str, overrides: Sequence[str] = ()) -> dict[str, Recipe]:
    """The validated recipes of all stages, in the order in which they run; '' names the only one."""
    whole = Path(recipe).is_file() or ":" not in recipe
    name, _, wanted = (recipe, "", "") if whole else recipe.rpartition(":")
    trees = stages.split(tree_of(name), overrides)
    if wanted and wanted not in trees:
        raise ConfigError(f"{name} has no stage {wanted!r}. {did_you_mean(wanted, filter(None, trees))}")
    found = {stage: checked(tree) for stage, tree in trees.items() if wanted in ("", stage)}
    for one in found.values():
        check_there(one)
    return found


def tree_of(name: str) -> dict[str, Any]:
    """The keys and values of a recipe given by path or by bundled name; nothing of them is checked."""
    path = find(name)
    loaded: Any = yaml_text.read(path)
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(loaded).__name__}")
    return cast("dict[str, Any]", loaded)


def checked(tree: dict[str, Any]) -> Recipe:
    """A recipe with nothing left to be given; whether its manifests are there is asked by `check_there`."""
    if unset := [key for key, value in leaves(tree) if value == REQUIRED]:
        raise ConfigError("\n".join(f"{key}: required; give it as {key}=VALUE" for key in unset))
    return validate(Recipe, tree)


def check_there(recipe: Recipe) -> None:
    """Raises ConfigError where a manifest is not there, with the names that are near."""
    from ..audio.stores.address import is_remote

    for key in ("train", "valid"):
        value = getattr(recipe.data, key)
        if value is not None and not (is_remote(value) or Path(value).exists()):
            raise ConfigError(f"data.{key}: {value} does not exist{_nearby(Path(value))}")


def methods_of(recipe: Recipe) -> dict[str, Method]:
    """The methods of the adapters that start from scratch, validated by their own fields."""
    fresh = {name: fields for name, fields in recipe.adapters.items() if "method" in fields}
    return _methods(fresh, "adapters")


def _methods(adapters: Mapping[str, Any], where: str) -> dict[str, Method]:
    from ..registry import METHODS

    methods: dict[str, Method] = {}
    for name, fields in adapters.items():
        if not isinstance(fields, dict) or "method" not in fields:
            raise ConfigError(f"{where}.{name}: expected {{method: NAME, ...}}, got {fields!r}")
        try:
            method = METHODS[fields["method"]]
        except ConfigError as error:
            raise ConfigError(f"{where}.{name}.method: {error}") from None
        rest = {key: value for key, value in fields.items() if key != "method"}
        methods[name] = validate(method, rest, f"{where}.{name}")
    return methods


def check_decoder(recipe: Recipe) -> None:
    """Validates the fields of a waveform decoder that starts from scratch, and of adapters in one."""
    from ..registry import DECODERS

    task = recipe.task
    if not isinstance(task, RestoreConfig) or not task.decoder:
        return
    _methods(task.decoder.get("adapters") or {}, "task.decoder.adapters")
    if "name" not in task.decoder:
        return
    try:
        settings = DECODERS[task.decoder["name"]]
    except ConfigError as error:
        raise ConfigError(f"task.decoder.name: {error}") from None
    validate(settings, {key: value for key, value in task.decoder.items() if key != "name"}, "task.decoder")


def degrader_of(recipe: Recipe) -> Degrader | None:
    """What training clips go through, its steps validated; None when they stay as recorded."""
    from ..audio.degrade import Degrader, parse

    data = recipe.data
    if not data.degrade:
        return None
    try:
        steps = parse(data.degrade)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"data.{error}") from None
    if data.channels == "mix" and any(step.kind == "array" for step in steps):
        raise ConfigError(
            "data.degrade: array makes several microphones of one; data.channels=views hears them"
        )
    degrader = Degrader(steps, seed=recipe.seed, clean=data.clean, variants=data.variants)
    if isinstance(recipe.task, AsrConfig) and recipe.task.distil and degrader.stretches_late:
        raise ConfigError(
            "data.degrade: with task.distil a change of speed comes before all that makes a clip worse: "
            "put the step `speed` first"
        )
    if degrader.stretch != (1.0, 1.0):
        if recipe.task.name == "restore":
            raise ConfigError(
                "data.degrade: speed moves sounds away from where they are in the clean recording, and "
                "restoration learns from the two side by side. Leave it out"
            )
        if data.cache:
            raise ConfigError(
                "data.cache: keeps batches of clips of one length, which speed changes. Leave one of them out"
            )
    return degrader


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out; reading it gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _nearby(path: Path) -> str:
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    return f". {did_you_mean(path.name, siblings)}" if siblings else f" (nor does the folder {path.parent})"
