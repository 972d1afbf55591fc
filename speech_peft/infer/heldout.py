"""Whether an adapter has seen the clips it is to be tested on, by the recipe that lies beside it.

Training and validation clips both count: a figure on clips that chose the best step is flattered too. Clips
are the same when they share a stretch of the same file, or of a copy of it under the same name.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..audio import manifest
from ..audio.row import Row
from ..audio.select import where
from ..errors import ConfigError
from ..files import yaml_text


@dataclass(frozen=True)
class Used:
    """What one part of a recipe's data was: `train` or `valid`, of which manifest, and which rows."""

    recipe: Path
    part: str
    manifest: Path
    wanted: Mapping[str, Any]


def check(folder: Path, rows: Sequence[Row]) -> str:
    """`ok`, or why nobody can tell; raises ConfigError where the adapter has seen a row.

    The answer is written beside the scores, as a reader cannot ask the adapter.
    """
    unknown: list[str] = []
    for used in _used(folder, unknown, set()):
        if not used.manifest.exists():
            unknown.append(f"data.{used.part} of {used.recipe} is not on this machine ({used.manifest})")
            continue
        given = manifest.read(used.manifest)
        seen = overlap(where(given, used.wanted, used.manifest) if used.wanted else given, rows)
        if seen:
            chosen = f" where {dict(used.wanted)}" if used.wanted else ""
            did = "trained on" if used.part == "train" else "was validated on"
            raise ConfigError(
                f"{folder} {did} {len(seen)} of the {len(rows)} test rows (first: {seen[0].id!r}): "
                f"data.{used.part} is {used.manifest}{chosen} in {used.recipe}. "
                "Test it on other rows, for instance with --where fold=4"
            )
    return "; ".join(unknown) or "ok"


def overlap(seen: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` that share sound with a row of `seen`."""
    by_file: dict[str, list[Row]] = {}
    by_name: dict[tuple[str, int], list[Row]] = {}
    for row in seen:
        by_file.setdefault(os.path.realpath(row.audio), []).append(row)
        by_name.setdefault(_name_and_size(row.audio), []).append(row)
    found = []
    for row in rows:
        others = by_file.get(os.path.realpath(row.audio))
        if others is None:
            copies = by_name.get(_name_and_size(row.audio), [])
            others = [other for other in copies if _digest(other.audio) == _digest(row.audio)]
        if any(_at_once(row, other) for other in others):
            found.append(row)
    return found


def _used(folder: Path, unknown: list[str], visited: set[Path]) -> Iterator[Used]:
    """The data of the recipe in `folder`, and of the adapters that it started `from`."""
    path = folder / "recipe.yaml"
    visited.add(folder.resolve())
    if not path.exists():
        unknown.append(f"{folder} has no recipe.yaml")
        return
    try:
        recipe = yaml_text.read(path)
        data = dict(recipe["data"])
        parts = {part: data[part] for part in ("train", "valid") if data.get(part)}
        if data.get("valid_where") and "valid" not in parts:
            parts["valid"] = parts["train"]
    except (KeyError, TypeError, ValueError) as error:
        unknown.append(f"{path} does not say what it trained on ({error!r})")
        return
    for part, name in parts.items():
        yield Used(path, part, Path(name), data.get(f"{part}_where") or {})
    for fields in (recipe.get("adapters") or {}).values():
        source = (fields or {}).get("from")
        if source and Path(source).resolve() not in visited:
            yield from _used(Path(source), unknown, visited)


def _at_once(a: Row, b: Row) -> bool:
    """Whether two stretches of one recording share more than a rounding error."""
    ends = [row.start + (float("inf") if row.duration is None else row.duration) for row in (a, b)]
    return min(ends) - max(a.start, b.start) > 0.001


def _name_and_size(path: Path) -> tuple[str, int]:
    try:
        return path.name, path.stat().st_size
    except OSError:
        return str(path), -1  # not there: only itself is the same


@cache
def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return str(path).encode()
