"""Predictions of restoration: recordings as a system left them, written and read as `preds.jsonl`."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import json_text
from ..metrics.normalise import Normaliser
from ..metrics.wer import align_words, count
from .words import first_row, read_each

_OWN = (
    *("id", "audio_filepath", "input_filepath", "reference_filepath", "duration", "time", "lang", "speaker"),
    *("text", "text_of", "pred_text", "words", "figures", "reasons", "restored", "error"),
)
_TYPES = {
    "duration": (int, float),
    "time": (int, float),
    "words": (dict, type(None)),
    "figures": dict,
    "reasons": dict,
    "restored": (dict, type(None)),
    "error": (str, type(None)),
}


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
    return first_row(path).get("task") == "restore"


def recounted(item: Restoration, rule: Normaliser, language: str = "") -> Restoration:
    """With the judge's errors by a normaliser; `language` is that of rows that name none."""
    if item.words is None:
        return item
    spoken = item.lang or language
    (aligned,) = align_words([rule(item.text, spoken)], [rule(item.pred_text, spoken)])
    return replace(item, words=asdict(count(aligned)))


def read(path: str | Path) -> list[Restoration]:
    """The predictions of a `preds.jsonl` that `bench restore` wrote."""
    return read_each(path, _parse)


def _parse(line: str, where: str, number: int) -> Restoration:
    row = json_text.parse(line, where)
    missing = [name for name in _OWN if not isinstance(row, dict) or name not in row]
    if missing:
        raise ConfigError(f"{where}: no restoration as `bench restore` writes it: it has no {missing[0]!r}")
    own = {name: row[name] for name in _OWN}
    for name, value in own.items():
        if not isinstance(value, _TYPES.get(name, str)) or isinstance(value, bool):
            raise ConfigError(f"{where}: {name} is {str(value)[:60]!r}, which `bench restore` does not write")
    for name, number_of in (*own["figures"].items(), *(own["words"] or {}).items()):
        if not isinstance(number_of, int | float) or isinstance(number_of, bool):
            raise ConfigError(f"{where}: {name} is {str(number_of)[:60]!r}; expected a number")
    columns = {name: value for name, value in row.items() if name not in (*_OWN, "task")}
    return Restoration(**own, columns=columns)
