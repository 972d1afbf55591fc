"""What a shard is made of: rows that follow each other, found without reading those before them.

A manifest of JSON lines is cut at its bytes: a shard has the lines that begin in its stretch of the file, so
a million rows are cut in no time and read a shard at a time, from a disk or a store. What cannot be cut so
(a folder, a table, tars) is gone through once.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..audio import store
from ..audio.rows import packed
from ..audio.rows.records import suffix_of
from ..errors import ConfigError
from ..folders.inputs import Gathered, Job, gather, job_of
from ..folders.ledger import fingerprint

_LINES = frozenset({".jsonl", ".ndjson"})
_SAMPLE_BYTES = 1 << 16  # of a manifest, by which its rows are guessed


@dataclass(frozen=True)
class Lines:
    """Those lines of a manifest that begin between two of its bytes."""

    path: str
    begin: int
    end: int

    def __iter__(self) -> Iterator[Job]:
        path = Path(self.path)
        for at, row in packed.lines(self.path, self.begin, self.end):
            yield job_of(row, path, at)


@dataclass(frozen=True)
class Block:
    """The rows of one shard; small, as it is sent to who works on it."""

    place: int
    of: int
    parts: tuple[Lines | Job, ...]

    def jobs(self) -> Iterator[Job]:
        for part in self.parts:
            if isinstance(part, Job):
                yield part
            else:
                yield from part


class Cut:
    """The blocks of what was named, in order; may be gone through more than once."""

    def __init__(self, inputs: Sequence[str], suffixes: frozenset[str], of: int):
        """Raises ConfigError for an input that is not there, and where there is no recording."""
        self.of = of
        self._manifests = _sizes(inputs) if all(_is_lines(one) for one in inputs) else None
        self._jobs = None if self._manifests else gather(inputs, suffixes)
        if next((job for block in self for job in block.jobs()), None) is None:
            raise ConfigError(f"{', '.join(inputs)}: lists no recording")

    def __iter__(self) -> Iterator[Block]:
        if self._manifests is not None:
            yield from _by_bytes(self._manifests, self.of)
        elif self._jobs is not None:
            yield from _by_rows(self._jobs, self.of)

    def rows(self) -> int:
        """How many there are; of JSON lines a guess from the first."""
        if self._manifests is None:
            return self._jobs.count() if self._jobs is not None else 0
        first = self._manifests[0][0]
        place, name = store.of_file(first)
        head = place.read(name, 0, min(self._manifests[0][1], _SAMPLE_BYTES))
        each = len(head) / max(1, head.count(b"\n"))
        return round(sum(size for _, size in self._manifests) / each)


def _is_lines(given: str) -> bool:
    cuts = Path(given).name.startswith("cuts.")  # Lhotse's, whose sound lies beside them
    return suffix_of(Path(given)) in _LINES and not given.endswith(".gz") and not cuts and "*" not in given


def _sizes(manifests: Sequence[str]) -> list[tuple[str, int]]:
    found = []
    for path in manifests:
        place, name = store.of_file(path)
        try:
            found.append((path if store.is_remote(path) else os.path.abspath(path), place.size(name)))
        except FileNotFoundError:
            raise ConfigError(f"{path}: there is no such file, folder or pattern") from None
    return found


def _by_bytes(manifests: Sequence[tuple[str, int]], of: int) -> Iterator[Block]:
    total = sum(size for _, size in manifests)
    for place in range(of):
        begin, end, before, parts = total * place // of, total * (place + 1) // of, 0, []
        for path, size in manifests:
            if begin < before + size and end > before:
                parts.append(Lines(path, max(0, begin - before), min(size, end - before)))
            before += size
        yield Block(place, of, tuple(parts))


def _by_rows(jobs: Gathered, of: int) -> Iterator[Block]:
    count, place, held = jobs.count(), 0, []
    for number, job in enumerate(jobs, 1):
        held.append(job)
        while place < of - 1 and number >= count * (place + 1) // of:
            yield Block(place, of, tuple(held))
            place, held = place + 1, []
    while place < of:
        yield Block(place, of, tuple(held))
        place, held = place + 1, []


def name_of(block: Block, jobs: Sequence[Job], settings: str) -> str:
    """The name of a shard: its place, its rows with what lies behind them, and the settings."""
    digest = hashlib.sha256(settings.encode())
    for job in jobs:
        audio = os.fspath(job.audio) if store.is_remote(job.audio) else os.path.abspath(job.audio)
        print_ = fingerprint(job.audio, job.start, job.duration)
        digest.update(f"{job.relpath}\0{audio}\0{print_}\0{job.problem}\n".encode("utf-8", "surrogateescape"))
    return f"{block.place:05}-of-{block.of:05}-{digest.hexdigest()[:16]}"
