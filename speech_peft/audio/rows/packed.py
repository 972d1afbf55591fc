"""Rows whose sound lies in one file with others: tars as WebDataset has them, tables, Lhotse's shar.

They are given as they are come by, so that the first is there at once and nothing is held.
"""

import gzip
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from ...errors import ConfigError
from ...files import json_text
from .. import store
from ..containers import held, tables
from ..io import AUDIO_SUFFIXES
from .columns import Columns, suffixed
from .records import LONGEST, JsonLines, suffix_of
from .row import Row

PACKED = frozenset({".tar", *tables.SUFFIXES})


def is_packed(path: str | Path) -> bool:
    """Whether a file of this name is read here: sound lies in it, or it lies in a store."""
    name = Path(path)
    return name.suffix.lower() in PACKED or _is_shar(name) or store.is_remote(path)


def rows(path: str | Path) -> Iterator[Row | str]:
    """Every row, or what is wrong with it. Raises ConfigError for a file that is none of these."""
    path = str(path) if store.is_remote(path) else str(Path(path).absolute())
    name = Path(path)
    try:
        if name.suffix.lower() == ".tar":
            yield from _of_tar(path)
        elif name.suffix.lower() in tables.SUFFIXES:
            yield from _of_table(path)
        elif _is_shar(name):
            yield from _of_shar(name)
        elif suffix_of(name) in (".jsonl", ".ndjson") and name.suffix != ".gz":
            yield from (row for _, row in lines(path, 0, None))
        elif name.suffix.lower() in AUDIO_SUFFIXES:
            yield Row(name.stem, name)
        else:
            raise ConfigError(
                f"{path}: in a store there may be .jsonl, .tar, .parquet, .arrow and recordings"
            )
    except FileNotFoundError:
        raise ConfigError(f"{store.address(path)}: there is no such file, folder or pattern") from None


def lines(path: str, begin: int, end: int | None) -> Iterator[tuple[int, Row | str]]:
    """The rows of JSON lines that begin between two bytes, each with where it does."""
    columns, form = Columns(Path(path).parent, {}), JsonLines(Path(path))
    place, name = store.of_file(path)
    with place.opened(name) as file:
        at = begin
        if at:  # the line that is under way here began before
            file.seek(at - 1)
            at += len(file.readline()) - 1
        while (end is None or at < end) and (line := file.readline(LONGEST + 1)):
            if line.strip():
                yield at, _row(path, columns, form, at, line)
            at += len(line)


def _row(path: str, columns: Columns, form: JsonLines, at: int, line: bytes) -> Row | str:
    where = f"{path}:byte {at}"
    try:
        if len(line) > LONGEST:
            raise ConfigError(f"{where}: a line of more than {LONGEST >> 20} MB")
        row, given = columns.row(where, form.parse(where, line.removeprefix(b"\xef\xbb\xbf")))
    except ConfigError as error:
        return str(error)
    # What the rest of the manifest holds is not known, so a slice is always named by where it starts.
    return row if given or not row.start else Row(**{**vars(row), "id": suffixed(row)})


# ---------------------------------------------------------------- tars


def _of_tar(path: str) -> Iterator[Row | str]:
    """A row for each key that has sound: all members of one name, up to its first dot, follow each other."""
    place, name = store.of_file(path)
    with place.opened(name) as file:
        key, sample = "", {}
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for one in tar:
                    if not one.isfile():
                        continue
                    folder, slash, last = one.name.rpartition("/")
                    stem, _, extension = last.partition(".")
                    if f"{folder}{slash}{stem}" != key:
                        yield from _sample(path, key, sample)
                        key, sample = f"{folder}{slash}{stem}", {}
                    sample[extension.lower()] = _part(tar, one, extension)
        except tarfile.TarError as error:
            raise ConfigError(f"{path}: cannot be read as a tar ({error})") from None
        yield from _sample(path, key, sample)


def _part(tar: tarfile.TarFile, one: tarfile.TarInfo, extension: str) -> Any:
    """Where sound lies; of what is no sound, what it says."""
    if f".{extension.lower().rpartition('.')[2]}" in AUDIO_SUFFIXES:
        return one.offset_data, one.size, one.name.rpartition("/")[2]
    content: IO[bytes] | None = tar.extractfile(one) if one.size <= LONGEST else None
    return None if content is None else content.read().decode("utf-8", "replace")


def _sample(path: str, key: str, sample: Mapping[str, Any]) -> Iterator[Row | str]:
    sounds = [part for part in sample.values() if isinstance(part, tuple)]
    if not sounds:
        return
    folder, slash, last = key.rpartition("/")
    record: dict[str, Any] = {"id": folder + slash + last.replace("%2E", ".").replace("%25", "%")}
    record["audio"] = str(held.member(path, *sounds[0]))
    if isinstance(text := sample.get("txt"), str):
        record["text"] = text.rstrip("\r\n")
    if isinstance(label := sample.get("cls"), str):
        record["label"] = label.strip()
    try:
        if isinstance(about := sample.get("json"), str):
            told = json_text.cells(about)
            known = ("text", "speaker", "lang", "label", "duration")
            record = {name: told[name] for name in known if isinstance(told, dict) and name in told} | record
        yield Columns(Path("/"), {}).row(f"{path}:{key}", record)[0]
    except (ConfigError, ValueError) as error:
        yield str(error)


# ---------------------------------------------------------------- tables


def _of_table(path: str) -> Iterator[Row | str]:
    with tables.opened(path) as table:
        sound, columns = tables.sound_column(table.schema), Columns(Path(path).parent, {})
        for number, record in enumerate(table.about(sound)):
            yield _cell_row(path, columns, number, record, sound)


def _cell_row(
    path: str, columns: Columns, number: int, record: dict[str, Any], sound: str | None
) -> Row | str:
    cells = {
        name: cell for name, cell in record.items() if cell is None or isinstance(cell, str | int | float)
    }
    if sound is not None:
        for name in ("audio_filepath", "audio_path", "file_name", "path", "start"):
            cells.pop(name, None)  # where it once lay: its sound is here
        about = record.get(sound)
        own = about.get("path") if isinstance(about, dict) else None
        cells["audio"] = str(held.cell(path, number, Path(own or "clip.wav").name))
    try:
        return columns.row(f"{path}[{number}]", {"id": f"{Path(path).stem}/{number:06}", **cells})[0]
    except ConfigError as error:
        return str(error)


# ---------------------------------------------------------------- Lhotse


def _is_shar(name: Path) -> bool:
    return name.name.startswith("cuts.") and name.name.endswith((".jsonl.gz", ".jsonl"))


def _of_shar(name: Path) -> Iterator[Row | str]:
    """Cuts with the sound in `recording.N.tar` beside them, as Lhotse's shar has them, in the same order."""
    number = name.name.split(".")[1]
    tar = name.with_name(f"recording.{number}.tar")
    sounds = (row for row in _of_tar(str(tar)) if isinstance(row, Row))
    place, own = store.of_file(str(name))
    packed = name.suffix == ".gz"
    with place.opened(own) as file, gzip.open(file) if packed else nullcontext(file) as cuts:
        for line in cuts:
            cut = json_text.cells(line.decode())
            sound = next(sounds, None)
            if sound is None:
                yield f"{name}: cut {cut.get('id')!r} has no sound in {tar.name}"
                return
            said = (cut.get("supervisions") or [{}])[0]
            record = {"id": cut["id"], "audio": str(sound.audio), "text": said.get("text")}
            record |= {
                "speaker": said.get("speaker"),
                "lang": said.get("language"),
                "duration": cut["duration"],
            }
            yield Columns(Path("/"), {}).row(f"{name}:{cut['id']}", record)[0]
