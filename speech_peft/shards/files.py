"""What was made of a shard's rows, as one file: a tar as WebDataset reads it, Parquet as `datasets` does.

Rows stand in their order, whatever was finished first, and nothing in a file tells when or where it was made.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..folders.outcomes.outcome import Outcome

SOUND = ("wav", "flac")
COLUMNS = {"txt": "text", "wav": "audio", "flac": "audio"}
"""Extensions whose column in Parquet has a name of its own."""
_AT_ONCE = 64  # rows of Parquet held together; each may hold a recording


def key(relpath: str) -> str:
    """A row's name in a tar: WebDataset takes all before the first dot, so dots of the name are written %2E.

    >>> key("talks/v1.2 intro")
    'talks/v1%2E2 intro'
    """
    folder, slash, name = relpath.rpartition("/")
    return folder + slash + name.replace("%", "%25").replace(".", "%2E")


def unkeyed(name: str) -> str:
    """The row of a key."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.replace("%2E", ".").replace("%25", "%")


def write_tar(path: Path, rows: Sequence[Outcome], extensions: Sequence[str]) -> None:
    with tarfile.open(path, "w") as file:
        for row in rows:
            for extension, content in row.files.items():
                member = tarfile.TarInfo(f"{key(row.job.relpath)}.{extension}")
                if isinstance(content, Path):
                    member.size = content.stat().st_size
                    with open(content, "rb") as source:
                        file.addfile(member, source)
                else:
                    raw = encoded(content)
                    member.size = len(raw)
                    file.addfile(member, io.BytesIO(raw))


def write_parquet(path: Path, rows: Sequence[Outcome], extensions: Sequence[str]) -> None:
    arrow, parquet = pyarrow()
    sound = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    kinds = {column(one): sound if one in SOUND else arrow.string() for one in extensions}
    fields = [("id", arrow.string()), ("audio_filepath", arrow.string())]
    fields += [("start", arrow.float64()), ("audio_seconds", arrow.float64()), ("truncated", arrow.bool_())]
    fields += list(kinds.items())
    told = {b"huggingface": json.dumps({"info": {"features": _features(fields, sound)}}).encode()}
    schema = arrow.schema(fields, metadata=told)
    with parquet.ParquetWriter(path, schema) as file:
        for first in range(0, len(rows), _AT_ONCE):
            some = [_record(row, extensions) for row in rows[first : first + _AT_ONCE]]
            file.write_table(arrow.Table.from_pylist(some, schema=schema))


def column(extension: str) -> str:
    return COLUMNS.get(extension, extension)


def _record(row: Outcome, extensions: Sequence[str]) -> dict[str, Any]:
    job = row.job
    record: dict[str, Any] = {"id": job.relpath, "audio_filepath": str(job.audio), "start": job.start}
    record |= {"audio_seconds": round(row.audio_seconds, 3), "truncated": row.truncated}
    for one in extensions:
        content = row.files.get(one)
        if content is not None and one in SOUND:
            record[column(one)] = {"bytes": encoded(content), "path": f"{Path(job.relpath).name}.{one}"}
        elif content is not None:
            record[column(one)] = encoded(content).decode("utf-8", "replace")
    return record


def _features(fields: Sequence[tuple[str, Any]], sound: Any) -> Mapping[str, Any]:
    """The schema as `datasets` says it, so that it knows sound by itself."""
    names = {"double": "float64"}
    return {
        name: {"_type": "Audio"}
        if kind == sound
        else {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
        for name, kind in fields
    }


def encoded(content: str | bytes | Path) -> bytes:
    if isinstance(content, Path):
        return content.read_bytes()
    return content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pyarrow() -> tuple[Any, Any]:
    """Raises ConfigError where it is not installed."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            "--out-format parquet: needs pyarrow: pip install 'speech_peft[parquet]'; tar needs nothing"
        ) from None


WRITERS: Mapping[str, Callable[[Path, Sequence[Outcome], Sequence[str]], None]] = {
    "tar": write_tar,
    "parquet": write_parquet,
}
