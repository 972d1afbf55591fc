"""Which shards are done: a small object for each, written when its file is whole; together the ledger.

    OUT/00003-of-00100-9f0c....tar                   what was made of the rows
    OUT/.speech_peft/shards/00003-of-00100-9f0c....json    its mark
    OUT/.speech_peft/shards.json                     what all shards of OUT have in common

A mark is there when a shard is complete, and not before; so a folder can be read while it grows, and a run
goes on where others ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..audio.store import Store
from ..errors import ConfigError
from ..files import json_text
from ..folders.ledger import FOLDER

MARKS = f"{FOLDER}/shards"
TERMS = f"{FOLDER}/shards.json"
ERRORS = f"{FOLDER}/errors.jsonl"
SCHEMA = 1


@dataclass(frozen=True)
class Terms:
    """What the shards of a folder have in common."""

    command: str
    settings: str
    """The hash of all that decides what is made."""
    shards: int
    format: str
    """tar, parquet or files"""
    extensions: tuple[str, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Mark:
    """A shard that is done."""

    name: str
    place: int
    settings: str
    file: str
    """Its file below the folder; "" where each row has its own."""
    bytes: int
    sha256: str
    rows: int
    ok: int
    truncated: int
    failed: tuple[Mapping[str, str], ...] = ()
    """A row of the errors file for each."""
    audio_seconds: float = 0.0
    seconds: float = 0.0
    retries: int = 0
    """Requests to the store that had to be made again."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of rows that have their own: name -> sha256."""


def agreed(store: Store, terms: Terms, overwrite: bool) -> None:
    """Make the folder one of these terms. Raises ConfigError where it has shards of others.

    With `overwrite` those go, and what is done is done again.
    """
    before = terms_of(store)
    if overwrite:
        for mark in marks(store):
            removed(store, mark)
    elif before is not None and before != terms:
        old, new = asdict(before), asdict(terms)
        name = next(name for name in old if old[name] != new[name])
        raise ConfigError(
            f"--out: {store.root} holds shards whose {name} is {old[name]!r}, not {new[name]!r}; give "
            "another folder, or --overwrite to make them anew"
        )
    if before != terms:
        store.write(TERMS, _json(asdict(terms)))


def terms_of(store: Store) -> Terms | None:
    """None where a folder has no shards."""
    try:
        row = json_text.parse(store.read(TERMS).decode(), f"{store.root}/{TERMS}")
    except FileNotFoundError:
        return None
    try:
        return Terms(**{**row, "extensions": tuple(row["extensions"])})
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{store.root}/{TERMS}: not of this version ({error})") from None


def names(store: Store) -> set[str]:
    """Of the shards that are done."""
    return {
        one.name.rpartition("/")[2].removesuffix(".json")
        for one in store.found(MARKS)
        if one.name.endswith(".json")
    }


def place_of(name: str) -> int:
    return int(name.partition("-")[0])


def marks(store: Store, only: Sequence[str] | None = None) -> Iterator[Mark]:
    """Of every shard that is done, in order."""
    wanted = sorted(names(store) if only is None else only)
    for name, content in store.read_all([f"{MARKS}/{one}.json" for one in wanted]):
        row = json_text.parse(content.decode(), f"{store.root}/{name}")
        known = {one.name for one in fields(Mark)}
        yield Mark(**{**{key: row[key] for key in row if key in known}, "failed": tuple(row["failed"])})


def made(store: Store, mark: Mark) -> None:
    """Say that a shard is done; those of other rows or settings that had its place go after that."""
    store.write(f"{MARKS}/{mark.name}.json", _json(asdict(mark)))
    superseded(store, mark.name, names(store))


def superseded(store: Store, name: str, there: set[str]) -> None:
    """Remove the shards that were made in the place of this one before its rows changed."""
    others = [one for one in there if one != name and place_of(one) == place_of(name)]
    kept = set(next(marks(store, [name])).files) if others else set()
    for mark in marks(store, others):
        removed(store, mark, kept)


def removed(store: Store, mark: Mark, kept: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """A shard is no more; its mark goes first, so that none is without its file."""
    store.remove(f"{MARKS}/{mark.name}.json")
    for file in [mark.file] if mark.file else [name for name in mark.files if name not in kept]:
        store.remove(file)


def write_errors(store: Store) -> int:
    """The rows of all shards that failed, in one file; how many they are."""
    rows = [row for mark in marks(store) for row in mark.failed]
    store.write(ERRORS, "".join(json_text.write(row) + "\n" for row in rows).encode())
    return len(rows)


def _json(value: Any) -> bytes:
    return (json_text.write(value, indent=1) + "\n").encode()
