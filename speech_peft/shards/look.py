"""What lies in a folder of shards: how far it is, whether all of it is whole, and all of it in one file."""

import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio import store as stores
from ..audio.store import Store
from ..errors import ConfigError
from ..files import json_text
from ..files.atomic import atomic_path
from . import files, leases, marks
from .marks import Mark, Terms

_SHARD = re.compile(r"\d{5}-of-\d{5}-[0-9a-f]{16}\.(tar|parquet)")


@dataclass(frozen=True)
class Status:
    """How far a folder is."""

    command: str
    format: str
    shards: int
    done: int
    under_way: int
    """Shards that processes are at."""
    rows: int
    ok: int
    truncated: int
    failed: int
    quarantined: int
    audio_seconds: float
    bytes: int
    retries: int


def status(out: str | Path) -> Status:
    """Raises ConfigError where there are no shards."""
    store = stores.at(out)
    terms = terms_of(store)
    total: Counter[str] = Counter()
    seconds = 0.0
    for mark in marks.marks(store):
        seconds += mark.audio_seconds
        total.update(done=1, rows=mark.rows, ok=mark.ok, truncated=mark.truncated, failed=len(mark.failed))
        total.update(bytes=mark.bytes, retries=mark.retries)
        total["quarantined"] += sum(row["stage"] == "quarantine" for row in mark.failed)
    names = ("done", "rows", "ok", "truncated", "failed", "quarantined", "bytes", "retries")
    return Status(
        command=terms.command,
        format=terms.format,
        shards=terms.shards,
        under_way=leases.under_way(store),
        audio_seconds=round(seconds, 3),
        **{name: total[name] for name in names},
    )


def terms_of(store: Store) -> Terms:
    terms = marks.terms_of(store)
    if terms is None:
        raise ConfigError(f"{store.root}: holds no shards; they are made by transcribe, classify and restore")
    return terms


def problems(out: str | Path) -> Iterator[str]:
    """What is wrong with the shards, each in a line: missing, changed, torn, or a row in two of them."""
    store = stores.at(out)
    terms = terms_of(store)
    places: Counter[int] = Counter()
    rows: dict[str, str] = {}
    known = set()
    for mark in marks.marks(store):
        places[mark.place] += 1
        known.add(mark.file)
        try:
            found = list(_rows(store, mark, terms))
        except (OSError, ValueError, tarfile.TarError) as error:
            yield f"{mark.file or mark.name}: {error}"
            continue
        if len(found) != mark.ok:
            yield f"{mark.file or mark.name}: holds {len(found)} rows; its mark says {mark.ok}"
        for id in found:
            if (before := rows.setdefault(id, mark.name)) != mark.name:
                yield f"row {id!r} is in {before} and in {mark.name}; give rows an id of their own"
    for place in range(terms.shards):
        if not places[place]:
            yield f"shard {place} of {terms.shards}: not done"
        elif places[place] > 1:
            yield f"shard {place} of {terms.shards}: {places[place]} of them; run it again: the newest stays"
    for one in store.found(""):
        if _SHARD.fullmatch(one.name) and one.name not in known:
            yield f"{one.name}: has no mark; its process was killed before it was done. Run it again"


def _rows(store: Store, mark: Mark, terms: Terms) -> Iterator[str]:
    """The ids of a shard's rows. Raises OSError or ValueError where a file is not what was written."""
    if not mark.file:
        for name, digest in mark.files.items():
            if hashlib.sha256(store.read(name)).hexdigest()[:32] != digest:
                raise ValueError(f"{name} was changed since it was made")
        count = max(1, len(terms.extensions))
        yield from (name for number, name in enumerate(mark.files) if number % count == 0)
        return
    with store.opened(mark.file) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        if digest.hexdigest() != mark.sha256:
            raise ValueError("was changed since it was made")
        file.seek(0)
        yield from (str(record["id"]) for record in _records(file, mark.file, terms, sound=False))


def _records(file: Any, name: str, terms: Terms, sound: bool = True) -> Iterator[dict[str, Any]]:
    """What a shard holds, a row at a time; text is text."""
    if name.endswith(".parquet"):
        _, parquet = files.pyarrow()
        columns = None if sound else ["id"]
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=64, columns=columns):
            yield from batch.to_pylist()
        return
    held: dict[str, Any] = {}
    with tarfile.open(fileobj=file) as shard:
        for member in shard:
            stem, extension = member.name.rsplit(".", 1)
            if held and held["id"] != files.unkeyed(stem):
                yield held
                held = {}
            held["id"] = files.unkeyed(stem)
            content = shard.extractfile(member)
            if extension not in files.SOUND and content is not None:
                held[files.column(extension)] = content.read().decode("utf-8", "replace")
    if held:
        yield held


def merge(out: str | Path, to: Path, partial: bool = False) -> int:
    """All shards in one file, in order: a tar, a Parquet file, or JSON lines without sound; how many rows.

    Raises ConfigError where shards are missing, unless `partial`.
    """
    store = stores.at(out)
    terms = terms_of(store)
    done = list(marks.marks(store))
    if len(done) < terms.shards and not partial:
        raise ConfigError(
            f"{store.root}: {terms.shards - len(done)} of {terms.shards} shards are not done; run the rest, "
            "or take what there is with --partial"
        )
    if not all(mark.file for mark in done):
        raise ConfigError(f"{store.root}: each row has files of its own here; there is nothing to merge")
    suffix = to.suffix.lower()
    if suffix not in _MERGED or suffix not in (".jsonl", f".{terms.format}"):
        raise ConfigError(f"--to {to}: shards of {terms.format} become a .{terms.format} or a .jsonl")
    with atomic_path(to) as path:
        _MERGED[suffix](store, done, terms, path)
    return sum(mark.ok for mark in done)


def _to_tar(store: Store, done: list[Mark], terms: Terms, path: Path) -> None:
    with tarfile.open(path, "w") as whole:
        for mark in done:
            with store.opened(mark.file) as file, tarfile.open(fileobj=file) as shard:
                for member in shard:
                    whole.addfile(member, shard.extractfile(member))


def _to_parquet(store: Store, done: list[Mark], terms: Terms, path: Path) -> None:
    arrow, parquet = files.pyarrow()
    writer: Any = None
    for mark in done:
        with store.opened(mark.file) as file:
            shard = parquet.ParquetFile(file)
            writer = writer or parquet.ParquetWriter(path, shard.schema_arrow)
            for batch in shard.iter_batches(batch_size=64):
                writer.write_table(arrow.Table.from_batches([batch], schema=shard.schema_arrow))
    if writer is not None:
        writer.close()


def _to_lines(store: Store, done: list[Mark], terms: Terms, path: Path) -> None:
    with open(path, "w", encoding="utf-8") as lines:
        for mark in done:
            with store.opened(mark.file) as file:
                for record in _records(file, mark.file, terms):
                    lines.write(json_text.write(_plain(record), ensure_ascii=False) + "\n")


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Without sound; what is JSON itself as what it says."""
    plain: dict[str, Any] = {}
    for name, cell in record.items():
        if isinstance(cell, dict | bytes):
            continue
        if name == "json" and isinstance(cell, str):
            cell = json_text.parse(cell, name)
        plain[name] = cell.rstrip("\n") if name == "text" and isinstance(cell, str) else cell
    return plain


_MERGED = {".tar": _to_tar, ".parquet": _to_parquet, ".jsonl": _to_lines}
