"""What preparing a corpus gives, and the parts that several corpora share."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...audio import io, manifest
from ...audio.manifest import Row
from ...files import atomic, json_text

Progress = Callable[[int, int], None]  # (done, of how many), called after each recording
Split = Literal["train", "valid", "test"]
WORDS_A_SECOND = (0.5, 6.0)


@dataclass(frozen=True)
class Part:
    """One manifest of a corpus."""

    path: Path
    rows: int
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """The manifests that now exist, and whether they were there before."""

    folder: Path
    parts: Mapping[str, Part]
    reused: bool = False


def silent(done: int, total: int) -> None:
    """Progress that shows nothing."""


def normalised(text: str) -> str:
    """Letters, digits and single spaces: what two transcripts must differ in to be different texts."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def split_of(text: str, corpus: str) -> Split:
    """70 % train, 10 % valid, 20 % test, by a hash of the normalised text: one text falls in one split."""
    digest = hashlib.sha256(f"{corpus}\n{normalised(text)}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.7 else "valid" if share < 0.8 else "test"


def worded(text: str) -> bool:
    """Whether most of a text's words are words: with a vowel and no letter thrice, a lone letter or a number.

    >>> worded("Hmmm, well."), worded("Mmmmft! Frbl"), worded("..."), worded("Tři ovce."), worded("C, 24 hrs")
    (False, False, False, True, True)
    """
    words = unicodedata.normalize("NFD", normalised(text)).split()
    letters = [re.sub(r"[\u0300-\u036f]", "", word) for word in words]
    real = [
        len(word) == 1 or bool(re.search(r"[aeiouy\d]", word) and not re.search(r"(\w)\1\1", word))
        for word in letters
    ]
    return sum(real) * 2 > len(real)


def plausible(text: str, seconds: float) -> bool:
    """Whether so many words fit into so much sound."""
    slowest, fastest = WORDS_A_SECOND
    return bool(seconds) and slowest <= len(text.split()) / seconds <= fastest


def number(cell: str) -> int | str:
    """The integer that a cell spells, so that a fold is 1 and not "1"; any other cell as it is.

    >>> number("10"), number("1.0"), number("007")
    (10, '1.0', '007')
    """
    return int(cell) if cell.isdecimal() and str(int(cell)) == cell else cell


def measured(rows: Iterable[Row], total: int, progress: Progress, done: int = 0) -> list[Row]:
    """The rows with the lengths of their recordings; `done` of all `total` came before them."""
    found = []
    for row in rows:
        found.append(replace(row, duration=io.info(row.audio).seconds))
        done += 1
        progress(done, total)
    return found


def write_parts(out: Path, parts: Mapping[str, Sequence[Row]], stamp: Mapping[str, object]) -> Prepared:
    """Write `OUT/NAME.jsonl` for each part, then `OUT/corpus.json`: where it is, everything is complete."""
    for name, rows in parts.items():
        manifest.write(out / f"{name}.jsonl", rows)
    counts = {name: [len(rows), sum(row.duration or 0.0 for row in rows)] for name, rows in parts.items()}
    atomic.write_text(out / "corpus.json", json.dumps({**stamp, "parts": counts}, indent=2) + "\n")
    return Prepared(out, _parts(out, counts))


def reuse(out: Path, stamp: Mapping[str, object]) -> Prepared | None:
    """What an earlier run with the same stamp left complete, or None."""
    try:
        saved = json_text.read_object(out / "corpus.json")
        parts = _parts(out, saved.pop("parts"))
        same = saved == dict(stamp)
        filled = [part for part in parts.values() if same and part.rows]
        rows = [row for part in filled for row in manifest.read(part.path)]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not ours: make it anew
    complete = bool(rows) and all(row.audio.exists() for row in rows)
    return Prepared(out, parts, reused=True) if complete else None


def _parts(out: Path, counts: Mapping[str, Sequence[float]]) -> dict[str, Part]:
    return {name: Part(out / f"{name}.jsonl", int(rows), seconds) for name, (rows, seconds) in counts.items()}
