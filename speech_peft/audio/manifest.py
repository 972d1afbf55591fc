"""Lists of utterances, in the forms people already have, as one `Row` each.

| what `read` is given | what it is taken for |
| --- | --- |
| `.jsonl` (`.json`, `.ndjson`; `.gz` too) | one object a line; NeMo's names are understood |
| `.csv`, `.tsv` (`.gz` too) | a table with a header; columns are recognised by name |
| folder with `wav.scp` | Kaldi: `segments`, `text`, `utt2spk`, `utt2lang` as far as they are there |
| folder with `metadata.csv`, `.tsv` or `.jsonl` | AudioFolder: `file_name` and any other column |
| `.parquet`, or a folder of them | Hugging Face's data sets, with the sound inside (the extra `parquet`) |
| `.arrow`, or a folder of them | the same as `datasets` saves them on disk |
| `.tar`, or a folder of them | WebDataset's: sound, `.txt`, `.json` and `.cls` of one key are a row |
| an address such as `s3://bucket/*.tar` | `.jsonl`, `.tar`, `.parquet`, `.arrow` and recordings in a store |
| `cuts.000000.jsonl.gz` | Lhotse's shar, with `recording.000000.tar` beside it |
| folder with `noisy/` and `clean/` | pairs of the same relative stem |
| folder whose recordings all lie one folder down | classification: the folder's name is the label |
| any other folder, or one recording | recordings without text |

Relative paths start at the manifest's folder. In JSON a recording may be a list of files, one a microphone:
all of them where microphones are heard one by one, elsewhere the first. Every error names file and line.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from ..files.atomic import atomic_path
from . import parquet, store
from .io import AUDIO_SUFFIXES
from .rows import kaldi, packed, text
from .rows.columns import COLUMNS as COLUMNS
from .rows.columns import Columns, suffixed
from .rows.labels import labelled as labelled
from .rows.listing import Listing as Listing
from .rows.records import form
from .rows.row import Row as Row
from .rows.select import where as where

PathLike = str | os.PathLike[str]
Broken = Literal["refused", "kept"]


def read(path: PathLike, columns: Mapping[str, str] | None = None) -> list[Row]:
    """The rows of a manifest of any kind; `columns` says which column holds a field when names do not tell.

    >>> read("validated.tsv", columns={"text": "sentence_normalised"})      # doctest: +SKIP
    """
    return list(listed(path, columns))


def listed(
    path: PathLike, columns: Mapping[str, str] | None = None, broken: Broken = "refused"
) -> Sequence[Row]:
    """The same rows; those of a file stay in it until they are asked for, however many they are.

    With `broken="kept"` a row that cannot be read is a ConfigError of its own, when it is asked for.
    """
    path = Path(path)
    if store.is_remote(path):
        return _far(store.address(path), broken)
    try:
        known = Columns(path, columns or {}) and path.exists()
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"{str(path)!r}: no file can be called that ({error})") from error
    if not known:
        raise ConfigError(f"{path}: there is no such manifest, folder or recording")
    rows = _folder(path, columns or {}, broken) if path.is_dir() else _file(path, columns or {}, broken)
    if not len(rows):
        raise ConfigError(f"{path}: lists no recording")
    return rows


def is_manifest(path: PathLike) -> bool:
    """Whether a file of this name lists recordings, `.gz` or not."""
    return form(Path(path)) is not None


def write(path: PathLike, rows: Iterable[Row]) -> None:
    """One JSON object a line (.gz compresses), in NeMo's names; paths below the folder are made relative."""
    path = Path(path)
    folder = Path(os.path.abspath(path.parent))
    with atomic_path(path) as temporary, text.created(temporary, gz=path.suffix == ".gz") as file:
        for row in rows:
            file.write(_line(_record(row, folder)) + "\n")


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


# ---------------------------------------------------------------- files and folders


def _file(path: Path, columns: Mapping[str, str], broken: Broken) -> Sequence[Row]:
    if packed.is_packed(path) and path.suffix.lower() != ".parquet":
        return _packed(path, broken)
    if (records := form(path)) is not None:
        return Listing(path, records, columns, broken)
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return [Row(path.stem, path)]
    if path.suffix.lower() == ".parquet":
        return parquet.read(path)
    raise ConfigError(
        f"{path}: not a manifest (.jsonl, .csv, .tsv, also .gz, .tar, .parquet or .arrow) and not a recording"
    )


def _far(path: str, broken: Broken) -> list[Row]:
    """Rows of what lies in a store, where a pattern may stand for several."""
    names = store.matching(path) if "*" in path else [path]
    return [row for name in names for row in _packed(name, broken)]


def _packed(path: str | Path, broken: Broken) -> list[Row]:
    rows = list(packed.rows(path))
    if broken == "refused" and (wrong := next((row for row in rows if isinstance(row, str)), None)):
        raise ConfigError(wrong)
    return [row for row in rows if isinstance(row, Row)]


def _folder(path: Path, columns: Mapping[str, str], broken: Broken) -> Sequence[Row]:
    if (path / "wav.scp").exists():
        return kaldi.read(path)
    for name in ("metadata.jsonl", "metadata.csv", "metadata.tsv"):
        if (path / name).exists():
            return _file(path / name, columns, broken)
    if parquet.shards(path):
        return parquet.read(path)
    for kind in ("*.tar", "*.arrow"):
        if files := sorted(path.glob(kind)):
            return [row for file in files for row in _packed(file, broken)]
    if (path / "noisy").is_dir() and (path / "clean").is_dir():
        return read_pairs(path / "noisy", path / "clean")
    files = recordings(path)
    one_down = bool(files) and all(len(file.relative_to(path).parts) == 2 for file in files)
    rows = [Row(_stem(file, path), file, label=file.parent.name if one_down else None) for file in files]
    alike = Counter(row.id for row in rows)
    return [replace(row, id=suffixed(row)) if alike[row.id] > 1 else row for row in rows]


def _record(row: Row, folder: Path) -> dict[str, Any]:
    def relative(file: Path) -> str:
        file = Path(os.path.abspath(file))
        return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

    files = [relative(file) for file in (row.audio, *row.others)]
    record: dict[str, Any] = {"id": row.id, "audio_filepath": files if row.others else files[0]}
    if row.start:
        record["offset"] = row.start
    for name in ("duration", "text", "label", "speaker", "lang"):
        if (cell := getattr(row, name)) is not None:
            record[name] = cell
    if row.target_audio is not None:
        record["target_audio"] = relative(row.target_audio)
    return record | {name: cell for name, cell in row.extra.items() if name not in record}


def _line(record: Mapping[str, Any]) -> str:
    """JSON that UTF-8 can hold: a name that is not UTF-8 is written in escapes and read as the same name."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(record)
    return line
