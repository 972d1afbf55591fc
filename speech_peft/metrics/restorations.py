"""Predictions of restoration: recordings as a system left them, written and read as `preds.jsonl`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import json_text
from .normalise import Normaliser
from .wer import align_words, count

_OWN = (
    *("id", "audio_filepath", "input_filepath", "reference_filepath", "duration", "time", "lang", "speaker"),
    *("text", "text_of", "pred_text", "words", "figures", "reasons", "restored", "error"),
)


@dataclass(frozen=True)
class Restoration:
    """One recording as a system left it."""

    id: str
    audio_filepath: str
    """What came out."""
    input_filepath: str
    reference_filepath: str = ""
    duration: float = 0.0
    time: float = 0.0
    """Seconds of work."""
    lang: str = ""
    speaker: str = ""
    text: str = ""
    text_of: str = ""
    """Where the reference text is from: `manifest`, `clean` (the judge's own of the clean) or "" for none."""
    pred_text: str = ""
    """What the judge heard."""
    words: Mapping[str, int] | None = None
    """Hits, substitutions, deletions and insertions of the judge's words."""
    figures: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By metric why a figure is n/a."""
    restored: Mapping[str, Any] | None = None
    """What the restorer says of it: strength, guard, level."""
    error: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        extra = {name: value for name, value in self.columns.items() if name not in _OWN}
        return {"task": "restore", **{name: getattr(self, name) for name in _OWN}, **extra}


def dumps(predictions: Iterable[Restoration]) -> str:
    """The content of a `preds.jsonl`."""
    return "".join(json_text.write(item.as_row(), ensure_ascii=False) + "\n" for item in predictions)


def is_restoration(path: Path) -> bool:
    """Whether a `preds.jsonl` is of restoration, by its first line."""
    try:
        with path.open(encoding="utf-8") as file:
            row = json.loads(next((line for line in file if line.strip()), "{}"))
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads it says what is wrong with it
    return isinstance(row, dict) and row.get("task") == "restore"


def recounted(item: Restoration, rule: Normaliser, language: str = "") -> Restoration:
    """With the judge's errors by a normaliser; `language` is that of rows that name none."""
    if item.words is None:
        return item
    spoken = item.lang or language
    (aligned,) = align_words([rule(item.text, spoken)], [rule(item.pred_text, spoken)])
    return replace(item, words=asdict(count(aligned)))


def read(path: str | Path) -> list[Restoration]:
    """The predictions of a `preds.jsonl` that `bench restore` wrote."""
    found = []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as predictions: {error}") from error
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            own = {name: row[name] for name in _OWN}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{path}:{at}: no restoration as `bench restore` writes it: {error!r}"
            ) from error
        columns = {name: value for name, value in row.items() if name not in (*_OWN, "task")}
        found.append(Restoration(**own, columns=columns))
    if not found:
        raise ConfigError(f"{path}: holds no prediction")
    return found
