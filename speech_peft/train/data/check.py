"""What `train --check` finds out about a recipe's rows: no model is opened, no recording is decoded."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...recipe import config
from ...recipe.recipe import Recipe

if TYPE_CHECKING:
    from ...audio.rows.row import Row


def check(recipe: Recipe) -> list[str]:
    """What a user should know before the run; raises ConfigError for what would end it at its start."""
    from ...audio.rows import apart

    data, parts = recipe.data, {}
    notes: list[str] = []
    degrader = config.degrader_of(recipe)
    for part, path, wanted in (
        ("train", data.train, data.train_where),
        ("valid", data.valid, data.valid_where),
    ):
        if path is None:
            continue
        rows = parts[part] = _rows(path, wanted, data.columns)
        if data.enrol and (nameless := next((row for row in rows if not row.speaker), None)):
            raise ConfigError(
                f"data.{part}: row {nameless.id!r} of {path} names no speaker, and data.enrol wants "
                "other clips of the same"
            )
        if degrader and degrader.needs_others and len(rows) < 2 and (part == "train" or data.degrade_valid):
            raise ConfigError(
                f"data.{part}: {path} lists one utterance, and babble is made of others. Add utterances, or "
                "leave the step out of data.degrade"
            )
        notes += _missing(part, rows, data.max_bad_fraction)
    if "valid" in parts and (told := apart.told(parts["train"], parts["valid"], bool(data.valid_where))):
        notes.append(told)
    return notes


def _rows(path: str, wanted: Any, columns: dict[str, str]) -> "Sequence[Row]":
    from ...audio import manifest

    rows = manifest.listed(path, columns)
    return manifest.where(rows, wanted, path) if wanted else rows


def _missing(part: str, rows: "Sequence[Row]", most: float) -> Iterator[str]:
    """Rows whose recording, or whose clean recording, is not there."""
    from ...audio.containers.held import is_there

    there = lru_cache(maxsize=100_000)(is_there)
    gone, first = 0, ""
    for row in rows:
        for path in (row.audio, *row.others, row.target_audio):
            if path is not None and not there(path):
                gone, first = gone + 1, first or f"row {row.id!r}: {path}"
                break
    if gone > most * len(rows):
        raise ConfigError(
            f"data.{part}: {gone} of {len(rows)} recordings are not there (data.max_bad_fraction is "
            f"{most:g}). First: {first}. Relative paths start at the manifest's folder"
        )
    if gone:
        yield f"data.{part}: {gone} of {len(rows)} recordings are not there, so left out. First: {first}"
