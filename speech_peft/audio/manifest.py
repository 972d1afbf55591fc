"""Lists of utterances, in the forms people already have, as one `Row` each.

| what `read` is given | what it is taken for |
| --- | --- |
| `.jsonl` (`.json`, `.ndjson`; `.gz` too) | one object a line; NeMo's names are understood |
| `.csv`, `.tsv` (`.gz` too) | a table with a header; columns are recognised by name |
| folder with `wav.scp` | Kaldi: `segments`, `text`, `utt2spk`, `utt2lang` as far as they are there |
| folder with `metadata.csv`, `.tsv` or `.jsonl` | AudioFolder: `file_name` and any other column |
| folder with `noisy/` and `clean/` | pairs of the same relative stem |
| folder whose recordings all lie one folder down | classification: the folder's name is the label |
| any other folder, or one recording | recordings without text |

Relative paths start at the manifest's folder. Every error names the file and the line.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean
from . import kaldi, text
from .atomic import atomic_path
from .io import AUDIO_SUFFIXES
from .labels import labelled as labelled
from .row import Row as Row
from .row import resolve, seconds
from .select import where as where

PathLike = str | os.PathLike[str]

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


def read(path: PathLike, columns: Mapping[str, str] | None = None) -> list[Row]:
    """The rows of a manifest of any kind; `columns` says which column holds a field when names do not tell.

    >>> read("validated.tsv", columns={"text": "sentence_normalised"})      # doctest: +SKIP
    """
    path = Path(path)
    for name in columns or {}:
        if name not in COLUMNS:
            raise ConfigError(f"columns.{name}: a row has no such field. {did_you_mean(name, COLUMNS)}")
    if not path.exists():
        raise ConfigError(f"{path}: there is no such manifest, folder or recording")
    rows = _folder(path, columns or {}) if path.is_dir() else _file(path, columns or {})
    if not rows:
        raise ConfigError(f"{path}: lists no recording")
    return rows


def write(path: PathLike, rows: Iterable[Row]) -> None:
    """One JSON object a line (.gz compresses), in NeMo's names; paths below the folder are made relative."""
    path = Path(path)
    with atomic_path(path) as temporary, text.created(temporary, gz=path.suffix == ".gz") as file:
        for row in rows:
            file.write(
                json.dumps(_record(row, Path(os.path.abspath(path.parent))), ensure_ascii=False) + "\n"
            )


def read_pairs(noisy: PathLike, clean: PathLike) -> list[Row]:
    """Noisy recordings with their clean ones as `target_audio`, matched by relative path less suffix."""
    noisy, clean = Path(noisy), Path(clean)
    sources, targets = ({_stem(file, top): file for file in recordings(top)} for top in (noisy, clean))
    alone = [str(sources[name]) for name in sources.keys() - targets.keys()]
    alone += [str(targets[name]) for name in targets.keys() - sources.keys()]
    if alone:
        shown = "".join(f"\n  {name}" for name in sorted(alone)[:20])
        more = f"\n  ... and {len(alone) - 20} more" if len(alone) > 20 else ""
        raise ConfigError(f"{noisy} and {clean}: {len(alone)} recordings have no partner:{shown}{more}")
    return [Row(name, file, target_audio=targets[name]) for name, file in sources.items()]


def recordings(folder: PathLike) -> list[Path]:
    """Every recording below a folder, sorted; hidden files and links to folders are left out."""
    found = []
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = (name for name in files if not name.startswith("."))
        found += [Path(top, name) for name in visible if Path(name).suffix.lower() in AUDIO_SUFFIXES]
    return sorted(found)


def _stem(file: Path, top: Path) -> str:
    return file.relative_to(top).with_suffix("").as_posix()


# ---------------------------------------------------------------- files


def _file(path: Path, columns: Mapping[str, str]) -> list[Row]:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in (".jsonl", ".json", ".ndjson"):
        return _rows(path, _json_lines(path), columns)
    if suffix in (".csv", ".tsv"):
        return _rows(path, _table(path, tabs=suffix == ".tsv"), columns)
    if suffix in AUDIO_SUFFIXES:
        return [Row(path.stem, path)]
    raise ConfigError(f"{path}: not a manifest (.jsonl, .csv, .tsv, also .gz) and not a recording")


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in text.lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: not a JSON object on one line ({error})") from error
        if not isinstance(record, dict):
            raise ConfigError(f"{path}:{number}: expected an object {{...}}, got {line[:40]!r}")
        yield number, record


def _table(path: Path, tabs: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    with text.opened(path) as file:
        header = file.readline()
        delimiter = "\t" if tabs else max(",;|\t", key=header.count)
        file.seek(0)
        # Tab-separated files do not quote: Common Voice sentences begin and end with bare quotes.
        quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        table = csv.DictReader(file, delimiter=delimiter, quoting=quoting)
        try:
            for record in table:
                if None in record or None in record.values():
                    names = ", ".join(table.fieldnames or ())
                    raise ConfigError(
                        f"{path}:{table.line_num}: more or fewer cells than the header: {names}"
                    )
                record.pop("", None)  # the row numbers that pandas puts first, under no name
                yield table.line_num, record
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}:{table.line_num + 1}: {error}") from error


def _rows(path: Path, records: Iterable[tuple[int, dict[str, Any]]], columns: Mapping[str, str]) -> list[Row]:
    return _unique(path, [(number, *_row(path, number, record, columns)) for number, record in records])


def _row(path: Path, number: int, record: dict[str, Any], columns: Mapping[str, str]) -> tuple[Row, bool]:
    """The row, and whether its id was given (else it is made from the path)."""
    place = f"{path}:{number}"
    names = {name.strip().lower(): name for name in record}
    cells: dict[str, Any] = {}
    used = set()
    for name, aliases in COLUMNS.items():
        column = columns.get(name) or next((names[alias] for alias in aliases if alias in names), None)
        if column is None:
            continue
        if column not in record:
            raise ConfigError(f"{place}: no column {column!r} for {name}; found: {', '.join(record)}")
        used.add(column)
        if record[column] not in (None, ""):
            cells[name] = record[column]
    if "audio" not in cells:
        raise ConfigError(
            f"{place}: no audio path; columns found: {', '.join(record)}. Name it: columns.audio=NAME"
        )
    audio = resolve(path.parent, str(cells["audio"]))
    target = cells.get("target_audio")
    row = Row(
        id=str(
            cells.get("id", _stem(audio, path.parent) if audio.is_relative_to(path.parent) else audio.stem)
        ),
        audio=audio,
        start=seconds(place, "start", cells.get("start", 0.0)),
        duration=seconds(place, "duration", cells["duration"]) if "duration" in cells else None,
        label=_label(cells["label"]) if "label" in cells else None,
        **{name: str(cells[name]) if name in cells else None for name in ("text", "speaker", "lang")},
        target_audio=None if target is None else resolve(path.parent, str(target)),
        extra={name: value for name, value in record.items() if name not in used},
    )
    # A column that is there and empty: nothing is said, none of the classes is heard. That is not "unknown".
    for name in ("text", "label"):
        if name not in cells and used & {columns.get(name) or "", *(names.get(n, "") for n in COLUMNS[name])}:
            row = replace(row, **{name: ""})
    return row, "id" in cells


def _label(cell: Any) -> str:
    """`dog;wind` for a clip of several labels; JSON may write them as a list."""
    return ";".join(map(str, cell)) if isinstance(cell, list | tuple) else str(cell)


def _unique(path: Path, rows: list[tuple[int, Row, bool]]) -> list[Row]:
    """Rows of distinct ids: made ones get suffix and start where the path alone does not tell them apart."""
    counts: dict[str, int] = {}
    for _, row, _ in rows:
        counts[row.id] = counts.get(row.id, 0) + 1
    seen: dict[str, int] = {}
    unique = []
    for number, row, given in rows:
        if counts[row.id] > 1 and not given:
            row = replace(row, id=f"{row.id}{row.audio.suffix}@{row.start:.3f}")
        if row.id in seen:
            raise ConfigError(f"{path}:{number}: id {row.id!r} was already used on line {seen[row.id]}")
        seen[row.id] = number
        unique.append(row)
    return unique


# ---------------------------------------------------------------- folders


def _folder(path: Path, columns: Mapping[str, str]) -> list[Row]:
    if (path / "wav.scp").exists():
        return kaldi.read(path)
    for name in ("metadata.jsonl", "metadata.csv", "metadata.tsv"):
        if (path / name).exists():
            return _file(path / name, columns)
    if (path / "noisy").is_dir() and (path / "clean").is_dir():
        return read_pairs(path / "noisy", path / "clean")
    files = recordings(path)
    one_down = bool(files) and all(len(file.relative_to(path).parts) == 2 for file in files)
    rows = [Row(_stem(file, path), file, label=file.parent.name if one_down else None) for file in files]
    return _unique(path, [(number, row, False) for number, row in enumerate(rows, 1)])


def _record(row: Row, folder: Path) -> dict[str, Any]:
    def relative(file: Path) -> str:
        file = Path(os.path.abspath(file))
        return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

    record: dict[str, Any] = {"id": row.id, "audio_filepath": relative(row.audio)}
    if row.start:
        record["offset"] = row.start
    for name in ("duration", "text", "label", "speaker", "lang"):
        if (cell := getattr(row, name)) is not None:
            record[name] = cell
    if row.target_audio is not None:
        record["target_audio"] = relative(row.target_audio)
    return record | {name: cell for name, cell in row.extra.items() if name not in record}
