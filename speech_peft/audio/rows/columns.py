"""Which column of a record means what, and the row that a record says."""

import math
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ConfigError, did_you_mean
from .row import Row, path_text, resolve, seconds, sentence, word

# A field and the column names that mean it, the likeliest first. Common Voice, NeMo, ESC-50, LibriTTS, ...
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "utt_id", "utterance_id", "uid"),
    "audio": (
        "audio",
        "audio_filepath",
        "audio_path",
        "file_name",
        "filename",
        "path",
        "file",
        "wav",
        "wav_path",
        "clip",
    ),
    "start": ("start", "offset", "start_time"),
    "duration": ("duration", "seconds"),
    "text": ("text", "sentence", "transcript", "transcription", "normalized_text", "raw_text"),
    "label": ("label", "class", "category", "target"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk"),
    "lang": ("lang", "language", "locale"),
    "target_audio": ("target_audio", "clean", "clean_path", "target_path"),
}


_WORDS = ("text", "label", "speaker", "lang")


class Brief(NamedTuple):
    """What a million rows are known by."""

    made: str
    """The id; made from the path where the record gives none."""
    full: str
    """The id where `made` does not tell two rows apart, with suffix and start; a given one as it is."""
    seconds: float
    """NaN where the record does not say."""
    spoken: bool
    """Whether there is a text and it is not empty."""
    spot: tuple[str, float]
    """The recording's absolute path, and where in it the row starts."""


class Columns:
    """Turns the records of one manifest into rows; `named` says which column holds a field."""

    def __init__(self, folder: Path, named: Mapping[str, str]):
        for name in named:
            if name not in COLUMNS:
                raise ConfigError(f"columns.{name}: a row has no such field. {did_you_mean(name, COLUMNS)}")
        self.folder, self.named = folder, dict(named)
        self._prefix, self._absolute = f"{folder}/", folder.is_absolute()
        self._home = os.path.join(os.path.abspath(folder), "")
        self._fields = lru_cache(maxsize=256)(self._find)

    def brief(self, where: Callable[[], str], record: Mapping[str, Any], clean: bool) -> Brief:
        """What is known of a row before it is needed; raises ConfigError for a record that is no row.

        `clean`: no text of the record holds a NUL or half of a character. `where` names the place.
        """
        found = self._quickly(record) if clean else None
        if found is None:
            row, given = self.row(where(), record)
            length = math.nan if row.duration is None else row.duration
            spot = (os.path.abspath(row.audio), row.start)
            found = Brief(row.id, row.id if given else suffixed(row), length, bool(row.text), spot)
        return found

    def _quickly(self, record: Mapping[str, Any]) -> Brief | None:
        """Of a record as most are, where nothing has to be converted; None of any other."""
        fields = self._fields(tuple(record))
        if not fields.all_there:
            return None
        for column in fields.words:
            if type(cell := record[column]) is not str and cell is not None:
                return None
        get, (name, named, begin, lasts) = record.get, fields.asked
        audio, id, start, duration = get(name), get(named), get(begin), get(lasts)
        if not audio or audio[0] in "~." or audio[-1] in "./":
            return None
        if "//" in audio or "./" in audio or "/." in audio:  # not the letters that the path will have
            return None
        try:
            length = math.nan if duration in (None, "") else float(duration)
            begins = 0.0 if start in (None, "") else float(start)
        except (TypeError, ValueError, OverflowError):
            return None
        if not 0 <= begins < math.inf or (not 0 < length < math.inf and duration not in (None, "")):
            return None
        spoken = bool(record.get(fields.text))
        spot = (audio if audio[0] == "/" else self._home + audio, begins)
        if id:
            return Brief(id, id, length, spoken, spot)
        if audio[0] == "/":
            audio = audio.removeprefix(self._prefix) if self._absolute else audio
            audio = audio.rpartition("/")[2] if audio[0] == "/" else audio
        stem, suffix = os.path.splitext(audio)
        return Brief(stem, f"{stem}{suffix}@{begins:.3f}", length, spoken, spot)

    def row(self, where: str, record: Mapping[str, Any]) -> tuple[Row, bool]:
        """The row, and whether its id was given (else it is made from the path); raises ConfigError."""
        fields = self._fields(tuple(record))
        for name, column in fields.of.items():
            if column not in record:
                raise ConfigError(f"{where}: no column {column!r} for {name}; found: {', '.join(record)}")
        cells = {
            name: cell for name, column in fields.of.items() if (cell := record[column]) not in ("", None)
        }
        if "audio" not in cells:
            raise ConfigError(
                f"{where}: no audio path; columns found: {', '.join(record)}. Name it: columns.audio=NAME"
            )
        audio, *others = self._paths(where, "audio", cells["audio"])
        # A column that is there and empty: nothing is said, no class is heard. That is not "unknown".
        for name in ("text", "label"):
            if name in fields.of:
                cells.setdefault(name, "")
        if isinstance(cells.get("label"), list | tuple):  # `dog;wind`, which JSON may write as a list
            cells["label"] = ";".join(word(where, "label", one) for one in cells["label"])
        words = {name: sentence(where, name, cells[name]) for name in _WORDS if name in cells}
        row = Row(
            id=path_text(where, "id", cells["id"]) if "id" in cells else made(self.folder, audio),
            audio=audio,
            start=seconds(where, "start", cells.get("start", 0.0)),
            duration=seconds(where, "duration", cells["duration"]) if "duration" in cells else None,
            target_audio=self._path(where, "target_audio", cells["target_audio"])
            if "target_audio" in cells
            else None,
            others=tuple(others),
            extra={name: _cell(cell) for name, cell in record.items() if name not in fields.used},
            **words,
        )
        return row, "id" in cells

    def _paths(self, where: str, name: str, cell: Any) -> list[Path]:
        """One file, or the files of several microphones, which JSON may write as a list."""
        several = isinstance(cell, list | tuple) and len(cell) > 0
        return [self._path(where, name, one) for one in (cell if several else [cell])]

    def _path(self, where: str, name: str, cell: Any) -> Path:
        return resolve(self.folder, path_text(where, name, cell))

    def _find(self, names: tuple[str, ...]) -> "_Fields":
        """Of records that have these columns."""
        known = {name.strip().lower(): name for name in names}
        of = {}
        for field, aliases in COLUMNS.items():
            column = self.named.get(field) or next((known[one] for one in aliases if one in known), None)
            if column is not None:
                of[field] = column
        return _Fields(
            of=of,
            used=frozenset(of.values()),
            all_there=os.sep == "/" and set(of.values()) <= set(names),
            words=tuple(of[name] for name in ("id", "audio", *_WORDS, "target_audio") if name in of),
            asked=tuple(of.get(name) for name in ("audio", "id", "start", "duration")),
            text=of.get("text"),
        )


class _Fields(NamedTuple):
    """Field -> column, of records with the same columns; the few that a `Brief` asks for by themselves."""

    of: dict[str, str]
    used: frozenset[str]
    all_there: bool
    words: tuple[str, ...]
    asked: tuple[Any, ...]
    text: Any


def made(folder: Path, audio: Path) -> str:
    """An id out of a path: where it lies below the folder, else its name; without the suffix."""
    inside = audio.relative_to(folder) if audio.is_relative_to(folder) else Path(audio.name)
    return inside.with_suffix("").as_posix()


def suffixed(row: Row) -> str:
    """The id of a row that its path alone does not tell from another."""
    return f"{row.id}{row.audio.suffix}@{row.start:.3f}"


def _cell(value: Any) -> Any:
    """A cell of a column that we do not know; NaN is how tables write that there is nothing."""
    return None if isinstance(value, float) and math.isnan(value) else value
