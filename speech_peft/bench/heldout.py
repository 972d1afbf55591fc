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
from ..audio.rows.row import Row
from ..audio.rows.select import where
from ..errors import ConfigError
from ..files import yaml_text
from .alike import near_duplicates


@dataclass(frozen=True)
class Used:
    """What one part of a recipe's data was: `train` or `valid`, of which manifest, and which rows."""

    recipe: Path
    part: str
    manifest: Path
    wanted: Mapping[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """What is known of test rows and an adapter; written beside its scores, as a reader cannot ask it."""

    answer: str
    """`ok`, or what it has seen, or why nobody can tell."""
    near_duplicates: int = 0
    """Test rows of whose words it has read four fifths in one training text."""

    def as_config(self) -> dict[str, Any]:
        return {"held_out": self.answer, "near_duplicates": self.near_duplicates}

    def told(self, rows: int) -> str:
        """One line for the screen; "" where nothing is to be said."""
        known = "" if self.answer == "ok" else f"whether it has seen the test rows: {self.answer}"
        near = (
            self.near_duplicates and f"{self.near_duplicates} of {rows} test texts are nearly training texts"
        )
        return "; ".join(filter(None, (known, near or "")))


def check(folder: Path, rows: Sequence[Row]) -> str:
    """`ok`, or why nobody can tell; raises ConfigError where the adapter has seen a row."""
    return examine(folder, rows).answer


def examine(folder: Path, rows: Sequence[Row], refuse: bool = True) -> HeldOut:
    """What an adapter has seen of the rows, by its recipe; if `refuse`, a ConfigError where it has."""
    found: list[str] = []
    texts: set[str] = set()
    for used in _used(folder, found, set()):
        if not used.manifest.exists():
            found.append(f"data.{used.part} of {used.recipe} is not on this machine ({used.manifest})")
            continue
        given = manifest.read(used.manifest)
        given = where(given, used.wanted, used.manifest) if used.wanted else given
        texts.update(row.text for row in given if row.text)
        seen = overlap(given, rows)
        if seen:
            chosen = f" where {dict(used.wanted)}" if used.wanted else ""
            did = "trained on" if used.part == "train" else "was validated on"
            told = (
                f"{folder} {did} {len(seen)} of the {len(rows)} test rows (first: {seen[0].id!r}): "
                f"data.{used.part} is {used.manifest}{chosen} in {used.recipe}"
            )
            if refuse:
                raise ConfigError(f"{told}. Test it on other rows, for instance with --where fold=4")
            found.append(told)
    near = near_duplicates(texts, [row.text or "" for row in rows])
    return HeldOut("; ".join(found) or "ok", len(near))


def overlap(seen: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` that share sound, degraded or clean, with a row of `seen`."""
    by_file: dict[str, list[Row]] = {}
    by_name: dict[tuple[str, int], list[Path]] = {}
    for row in seen:
        for path in _sounds(row):
            by_file.setdefault(os.path.realpath(path), []).append(row)
            by_name.setdefault(_name_and_size(path), []).append(path)
    found = []
    for row in rows:
        for path in _sounds(row):
            real = os.path.realpath(path)
            if real not in by_file:
                copies = by_name.get(_name_and_size(path), [])
                real = next((os.path.realpath(c) for c in copies if _digest(c) == _digest(path)), real)
            if any(_at_once(row, other) for other in by_file.get(real, ())):
                found.append(row)
                break
    return found


def _sounds(row: Row) -> list[Path]:
    """The recordings that a row is heard from: its own, and the clean one."""
    return [row.audio] if row.target_audio is None else [row.audio, row.target_audio]


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
