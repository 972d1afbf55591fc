"""What a classifier said about each clip, as lines of a `preds.jsonl`.

    {"id": "1-100032-A-0", "audio_filepath": "dog/1-100032-A-0.wav", "label": "dog", "start": 0.0, "end": 5.0,
     "top": [["dog", 0.93], ["cat", 0.04]], "probabilities": {"dog": 0.93, "cat": 0.04, ...}, "time": 0.1}

Several labels of one clip stand in one string, `dog;wind`; such predictions say `"multi_label": true`. Every
other column of the manifest is kept beside them: by those scores are sliced and folds are told apart.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import json_text
from .words import first_row, read_each

_TOP = 5
_OWN = (
    *("id", "audio_filepath", "label", "start", "end", "top", "probabilities", "multi_label"),
    *("duration", "time", "speaker", "lang", "error"),
)


@dataclass(frozen=True)
class ClassPrediction:
    """One clip: what it is (`label`), and how probable each class was found."""

    id: str
    audio_filepath: str
    label: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Of every class; empty where there is an error."""
    start: float = 0.0
    """Seconds into the file."""
    end: float = 0.0
    multi_label: bool = False
    """Whether a clip may be of several classes, each probability a yes or no of its own."""
    time: float = 0.0
    """Seconds of work; the share of its batch."""
    lang: str = ""
    speaker: str = ""
    error: str | None = None
    """Why there is no answer. Such a clip counts as wrong, not as absent."""
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return max(0.0, self.end - self.start)

    @cached_property
    def labels(self) -> frozenset[str]:
        """The classes that the clip is of."""
        return frozenset(split(self.label)) if self.multi_label else frozenset((self.label,))

    @cached_property
    def top(self) -> list[tuple[str, float]]:
        """All classes, the likeliest first; equal ones in the classifier's order."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])

    def as_row(self) -> dict[str, Any]:
        row = {
            "id": self.id,
            "audio_filepath": self.audio_filepath,
            "label": self.label,
            "start": self.start,
            "end": self.end,
            "top": [[name, probability] for name, probability in self.top[:_TOP]],
            "probabilities": dict(self.probabilities),
            "time": self.time,
            "lang": self.lang,
            "speaker": self.speaker,
            "error": self.error,
        }
        if self.multi_label:
            row["multi_label"] = True
        return row | {name: value for name, value in self.columns.items() if name not in _OWN}


def split(label: str) -> list[str]:
    """The labels of a cell such as `dog; wind`."""
    return [name.strip() for name in label.split(";") if name.strip()]


def dumps(predictions: Iterable[ClassPrediction]) -> str:
    """The content of a `preds.jsonl`."""
    return "".join(json_text.write(item.as_row(), ensure_ascii=False) + "\n" for item in predictions)


def is_classification(path: Path) -> bool:
    """Whether a `preds.jsonl` holds classes rather than words, by its first line."""
    return "probabilities" in first_row(path)


def read(path: str | Path) -> list[ClassPrediction]:
    """The predictions of a `preds.jsonl`, ours or any other that has `label` and `probabilities`."""
    return read_each(path, _parse)


def _parse(line: str, where: str, number: int) -> ClassPrediction:
    row = json_text.parse(line, where)
    if not isinstance(row, dict) or not isinstance(row.get("label"), str):
        raise ConfigError(
            f"{where}: expected an object with a string 'label', the reference; got {line[:60]}"
        )
    given = {} if row.get("error") else row.get("probabilities")
    if not isinstance(given, dict) or not (given or row.get("error")):
        raise ConfigError(f"{where}: no 'probabilities' and no 'error' that would explain it")
    audio = str(row.get("audio_filepath") or "")
    start = _number(row.get("start") or 0.0, "start", where)
    end = row.get("end")
    if end is None:
        end = start + _number(row.get("duration") or 0.0, "duration", where)
    return ClassPrediction(
        id=str(row.get("id") or audio or number),
        audio_filepath=audio,
        label=row["label"],
        probabilities={name: _probability(value, name, where) for name, value in given.items()},
        start=start,
        end=_number(end, "end", where),
        multi_label=row.get("multi_label") is True,
        time=_number(row.get("time") or 0.0, "time", where),
        lang=str(row.get("lang") or ""),
        speaker=str(row.get("speaker") or ""),
        error=str(row["error"]) if row.get("error") else None,
        columns={name: value for name, value in row.items() if name not in _OWN},
    )


def _number(value: Any, name: str, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {name}: expected a number, got {value!r}") from error


def _probability(value: Any, name: str, where: str) -> float:
    number = _number(value, f"probabilities.{name}", where)
    if not (math.isfinite(number) and -1e-6 <= number <= 1 + 1e-6):
        raise ConfigError(f"{where}: probabilities.{name} is {value!r}; expected 0 to 1")
    return min(1.0, max(0.0, number))
