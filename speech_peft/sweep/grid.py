"""A grid over one recipe: methods, what else varies, seeds and folds, as cells that are ready to run.

    methods:                                  # name -> dotted keys of the recipe
      probe: {adapters: {a: {method: none}}}
      lora: {adapters: {a: {method: lora, rank: 6}}, optim.lr: 5.0e-3}
    seeds: [0, 1, 2]
    folds:                                    # name -> dotted keys, and the rows that are tested
      "1": {data.train_where: {fold: [3, 4]}, data.valid_where: {fold: [2]}, test_where: {fold: [1]}}
    vary: {data.per_class: [1, 2, 4]}         # optional: every value of every key
    test: other.jsonl                         # optional: where test rows are; by default data.train
    test_degrade: [telephone]                 # optional: what is done to them, the same for every cell
    set: {trainer.max_steps: 100}             # optional: for all cells

Later ones win: `set`, method, vary, fold, seed, then what the command line says.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field, NonNegativeInt, field_validator

from ..audio import manifest
from ..audio.degrade import parse
from ..audio.rows.row import Row
from ..bench.heldout import overlap
from ..errors import ConfigError, did_you_mean
from ..files import yaml_text
from ..files.dotted import validate
from ..recipe import config
from ..recipe.parts import FOLDER_NAME_RULE, Part, Where, is_folder_name
from ..recipe.recipe import Recipe

# What changes no figure of a cell: where it is written, and how often it reports or saves.
_IDLE = ("trainer.log_every_steps", "trainer.save_every_steps", "trainer.save_every_seconds")


class Grid(Part):
    """A grid's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    folds: dict[str, dict[str, Any]] = Field(min_length=1)
    vary: dict[str, tuple[Any, ...]] = Field(default={})
    test: str | None = None
    test_degrade: tuple[Any, ...] = ()
    """Steps as in a recipe's `data.degrade`, with seed 0."""
    set: dict[str, Any] = Field(default={})

    @field_validator("test_degrade")
    @classmethod
    def _steps(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        parse(given)  # raises for what is none
        return given

    @field_validator("methods", "folds", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        """Fold 1 is the fold "1", and a method that sets nothing is the recipe's own."""
        if not isinstance(given, dict):
            return given
        for name in given:
            if not is_folder_name(str(name)):
                raise ValueError(f"{name!r} names a folder; {FOLDER_NAME_RULE}")
        return {str(name): fields or {} for name, fields in given.items()}


@dataclass(frozen=True)
class Cell:
    """One training run and the rows that its adapter is tested on."""

    method: str
    vary: Mapping[str, Any]
    seed: int
    fold: str
    recipe: Recipe
    rows: tuple[Row, ...]
    key: str
    """Digest of everything that the figures depend on."""
    degrade: tuple[Any, ...]
    """What is done to the rows before they are tested."""

    @property
    def name(self) -> str:
        """For people: `lora, data.per_class 4, seed 0, fold 1`."""
        return ", ".join([self.method, *(f"{k} {v}" for k, v in self.vary.items())]) + (
            f", seed {self.seed}, fold {self.fold}"
        )

    def place(self) -> dict[str, Any]:
        """Where in the grid it is, as a row of the results begins."""
        return {
            "key": self.key,
            "method": self.method,
            "vary": dict(self.vary),
            "seed": self.seed,
            "fold": self.fold,
        }


def read(path: str | Path) -> Grid:
    """The validated grid, of a file or a bundled name such as sweeps/esc10; raises ConfigError."""
    names = bundled()
    if not Path(path).is_file() and str(path) not in names:
        raise ConfigError(f"grid {path}: neither a file nor a bundled grid. {did_you_mean(str(path), names)}")
    tree = yaml_text.read(path if Path(path).is_file() else names[str(path)])
    if not isinstance(tree, dict):
        raise ConfigError(f"grid {path}: expected methods, seeds and folds, found {type(tree).__name__}")
    return validate(Grid, tree)


def bundled() -> dict[str, Path]:
    """The grids that come with the package, beside the recipes that they are for."""
    suffix = ".grid.yaml"
    files = sorted(config.RECIPES.rglob(f"*{suffix}"))
    return {path.relative_to(config.RECIPES).as_posix().removesuffix(suffix): path for path in files}


def cells(recipe: str, grid: Grid, out: Path, overrides: Sequence[str] = ()) -> list[Cell]:
    """Every cell, seed by seed and fold by fold, so that a first table is there early.

    Raises ConfigError, naming the cell, for a recipe that would not run, and for test rows that are trained
    or validated on.
    """
    points = [dict(zip(grid.vary, values, strict=True)) for values in product(*grid.vary.values())]
    found = [
        _cell(recipe, grid, out, overrides, method, point, seed, fold)
        for seed, fold, point, method in product(grid.seeds, grid.folds, points, grid.methods)
    ]
    seen: dict[str, Cell] = {}
    for cell in found:
        if (other := seen.setdefault(cell.key, cell)) is not cell:
            raise ConfigError(f"grid: {cell.name} and {other.name} are the same run; is a key misspelt?")
    return found


def _cell(
    recipe: str,
    grid: Grid,
    out: Path,
    overrides: Sequence[str],
    method: str,
    point: dict[str, Any],
    seed: int,
    fold: str,
) -> Cell:
    varied = (_folder(f"{key}-{value}") for key, value in point.items())
    place = Path(method, *varied, f"seed-{seed}", f"fold-{fold}")
    of_fold = {k: v for k, v in grid.folds[fold].items() if k not in ("test", "test_where")}
    given = {**grid.set, **grid.methods[method], **point, **of_fold, "seed": seed}
    lines = [*(_as_override(k, v) for k, v in given.items()), *overrides, f"out={out / 'runs' / place}"]
    where = ", ".join([method, *map(str, point.values()), f"fold {fold}"])
    try:
        read = config.read(recipe, lines)
        config.methods_of(read)
        config.degrader_of(read)
        if len(read.active) != 1 or len(read.train) != 1:
            raise ConfigError(f"adapters: a sweep trains and tests one, this recipe has {len(read.active)}")
        heard, rows = _rows(read, grid, fold)
    except ConfigError as error:
        raise ConfigError(f"grid: {where}: {error}") from None
    return Cell(
        method, point, seed, fold, *_shared(read, heard, rows, grid.test_degrade, out), grid.test_degrade
    )


def _folder(varied: str) -> str:
    """One folder, whatever a key and its value are: what may not be in its name gives way to a digest."""
    if is_folder_name(varied):
        return varied
    return f"{re.sub(r'[^a-zA-Z0-9_+-]+', '-', varied)[:60].strip('-')}-{_digest([varied])[:8]}"


def _as_override(key: str, value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n")
    return f"{key}={text.strip()}"


def _shared(
    recipe: Recipe, heard: list[Row], rows: list[Row], degrade: tuple[Any, ...], out: Path
) -> tuple[Recipe, tuple[Row, ...], str]:
    """The recipe with the sweep's own prefix cache, the test rows, and the key of both."""
    learned = _digest(_identity(row) for row in heard)
    tree = recipe.model_dump(mode="json")
    for key in ("out", *_IDLE):
        part, _, field = key.rpartition(".")
        (tree[part] if part else tree).pop(field)
    cache = recipe.data.cache
    if cache is not None:
        tree["data"]["cache"].pop("folder")
        folder = Path(cache.folder or out / "prefix_cache")
        if recipe.data.degrade:  # babble is made of the other clips: other rows, other sound
            folder /= _digest([learned, recipe.seed, recipe.data.per_class])
        cache = cache.model_copy(update={"folder": str(folder)})
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache": cache})})
    key = _digest([tree, learned, [_identity(row) for row in rows], *degrade])
    return recipe, tuple(rows), key


def _rows(recipe: Recipe, grid: Grid, fold: str) -> tuple[list[Row], list[Row]]:
    """The rows that are learned from or selected by, and those that are tested: never the same ones."""
    data, fields = recipe.data, grid.folds[fold]
    path = fields.get("test") or grid.test
    wanted = validate(_Test, {"test_where": fields.get("test_where") or {}}, f"folds.{fold}").test_where
    if not path and not wanted:
        raise ConfigError("test_where: say which rows are tested, or in `test` where they are")
    tested = _chosen(path or data.train, wanted)
    learned = _chosen(data.train, data.train_where)
    heard = [*learned, *(_chosen(data.valid, data.valid_where) if data.valid else [])]
    ids = (path or data.train, _frozen(wanted), data.train, _frozen(data.train_where))
    if seen := _overlap(*ids, data.valid, _frozen(data.valid_where)):
        raise ConfigError(f"row {seen!r} is tested, and it is trained or validated on too")
    if recipe.task.name == "classify":
        known = {label for row in learned for label in (row.label or "").split(";")}
        for row in tested:
            if set((row.label or "").split(";")) - known:
                raise ConfigError(f"test row {row.id!r} ({row.audio}) is {row.label!r}, which is not learned")
    return heard, tested


class _Test(Part):
    test_where: Where


def _frozen(wanted: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple((key, tuple(values)) for key, values in wanted.items())


@cache
def _read(path: str) -> tuple[Row, ...]:
    return tuple(manifest.read(path))


def _chosen(path: str, wanted: Mapping[str, Any]) -> list[Row]:
    rows = list(_read(path))
    return list(manifest.where(rows, wanted, path)) if wanted else rows


@cache
def _overlap(
    test: str, test_where: Any, train: str, train_where: Any, valid: str | None, valid_where: Any
) -> str | None:
    """The first test row that is heard before; asked once for all methods and seeds."""
    heard = _chosen(train, dict(train_where)) + (_chosen(valid, dict(valid_where)) if valid else [])
    found = overlap(heard, _chosen(test, dict(test_where)))
    return found[0].id if found else None


def _identity(row: Row) -> list[Any]:
    return [row.id, row.label, row.text, row.start, row.duration]


def _digest(parts: Iterator[Any] | Sequence[Any]) -> str:
    text = json.dumps(list(parts), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
