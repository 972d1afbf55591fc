"""What a system said about each utterance, in the files of the Open ASR Leaderboard.

One JSON object a line: `audio_filepath, duration, time, text, pred_text`, and ours beside them: `id`, `lang`,
`speaker`, `error`, and every other column of the manifest, by which scores can be sliced.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..errors import ConfigError
from ..files import json_text
from ..files import text as text_file

_OWN = ("id", "audio_filepath", "duration", "time", "text", "pred_text", "lang", "speaker", "error")
MOST_BYTES = 4_000_000_000
"""Of a preds.jsonl: ten million lines."""
_LONGEST = 16 << 20
"""Of one line, in bytes."""


@dataclass(frozen=True)
class Prediction:
    """One utterance: what was said (`text`), what was heard (`pred_text`), and what it took."""

    id: str
    audio_filepath: str
    duration: float
    """Seconds of audio."""
    time: float
    """Seconds of work; the share of its batch."""
    text: str
    pred_text: str
    lang: str = ""
    speaker: str = ""
    error: str | None = None
    """Why there is no transcript. Such an utterance counts as wholly deleted, not as absent."""
    columns: dict[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        extra = {name: value for name, value in self.columns.items() if name not in _OWN}
        return {name: getattr(self, name) for name in _OWN} | extra


@runtime_checkable
class Identified(Protocol):
    """A prediction of any task."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Identified)


def dumps(predictions: Iterable[Prediction]) -> str:
    """The content of a `preds.jsonl`."""
    return "".join(json_text.write(item.as_row(), ensure_ascii=False) + "\n" for item in predictions)


def read(path: str | Path) -> list[Prediction]:
    """The predictions of a `preds.jsonl`, ours or any other that has `text` and `pred_text`."""
    return read_each(path, _parse)


def read_each(path: str | Path, parse: Callable[[str, str, int], Item]) -> list[Item]:
    """What `parse(line, where, number)` makes of each line; raises ConfigError for no line or an id twice."""
    lines = text_file.read(path, MOST_BYTES).split("\n")  # splitlines() would cut at U+2028
    found = [parse(line, f"{path}:{at}", at) for at, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ConfigError(f"{path}: holds no prediction; expected one JSON object a line")
    seen: set[str] = set()
    for item in found:
        if item.id in seen:
            raise ConfigError(
                f"{path}: two predictions have the id {item.id!r}; ids pair the runs, make them unique"
            )
        seen.add(item.id)
    return found


def first_row(path: Path) -> dict[str, Any]:
    """What its first line says, by which tasks are told apart; nothing where it cannot be read.

    Whoever reads the whole file says what is wrong with it.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return {}
        with path.open("rb") as file:
            while (line := file.readline(_LONGEST)) and line.isspace():
                pass
        row = json_text.parse(line.decode("utf-8-sig"), "")
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def _parse(line: str, where: str, number: int) -> Prediction:
    row = json_text.parse(line, where)
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ConfigError(f"{where}: expected an object with a string 'text', the reference; got {line[:60]}")
    if not isinstance(row.get("pred_text"), str) and not row.get("error"):
        raise ConfigError(f"{where}: no 'pred_text' and no 'error' that would explain it")
    audio = str(row.get("audio_filepath") or "")
    return Prediction(
        id=str(row.get("id") or audio or number),
        audio_filepath=audio,
        duration=_seconds(row.get("duration"), where),
        time=_seconds(row.get("time"), where),
        text=row["text"],
        pred_text=row.get("pred_text") or "",
        lang=str(row.get("lang") or ""),
        speaker=str(row.get("speaker") or ""),
        error=str(row["error"]) if row.get("error") else None,
        columns={name: value for name, value in row.items() if name not in _OWN},
    )


def _seconds(value: Any, where: str) -> float:
    try:
        return float(value or 0.0)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: expected seconds, got {value!r}") from error
