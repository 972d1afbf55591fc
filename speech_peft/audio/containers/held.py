"""Sound that is no file of this machine by itself: in a tar, in a table, in a store.

    shards/000.tar::1536+32044/clip.wav          so many bytes of the tar, from there on
    shards/000.parquet::17/clip.wav              the sound in a row, counted from 0; of .arrow too
    s3://bucket/clips/clip.wav                   an object; of a WAV only the slice that is asked for is read

Such a path is read like any other: what it names becomes a temporary file for as long as it is open. A row
that holds it can be written into a manifest, which is then the index of the tar.
"""

import re
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from ...errors import AudioError
from .. import store
from ..store import PathLike
from . import tables

_MEMBER = re.compile(r"(.+\.tar)::(\d+)\+(\d+)/(.+)", re.DOTALL)
_CELL = re.compile(r"(.+\.(?:parquet|arrow))::(\d+)/(.+)", re.DOTALL)
_HEAD_BYTES = 1 << 16  # of a WAV, in which its samples begin as a rule


def is_held(path: PathLike) -> bool:
    """Whether it names sound that is no file of this machine by itself."""
    name = str(path)
    return ("::" in name and bool(_MEMBER.fullmatch(name) or _CELL.fullmatch(name))) or store.is_remote(path)


def member(tar: PathLike, offset: int, size: int, name: str) -> Path:
    """The path of a member of a tar."""
    return Path(f"{tar}::{offset}+{size}/{name}")


def cell(table: PathLike, row: int, name: str) -> Path:
    """The path of the sound in a row of a table."""
    return Path(f"{table}::{row}/{name}")


def taken(path: PathLike, start: float = 0.0, duration: float | None = None) -> IO[bytes]:
    """A temporary file with the sound, or with as much of it as a slice needs; it goes when it is closed.

    Raises AudioError where it is not there.
    """
    file: Any = NamedTemporaryFile(suffix=Path(path).suffix)  # noqa: SIM115
    try:
        _fill(file, str(path), start, duration)
        file.flush()
    except FileNotFoundError as error:
        file.close()
        raise AudioError(store.address(path), "no such file or object") from error
    except OSError as error:
        file.close()
        raise AudioError(store.address(path), f"cannot be read ({error})") from error
    return file


def _fill(file: IO[bytes], path: str, start: float, duration: float | None) -> None:
    if match := _MEMBER.fullmatch(path):
        begin, size = int(match[2]), int(match[3])
        place, name = store.of_file(match[1])
        content = place.read(name, begin, begin + size)
        if len(content) != size:
            raise OSError(f"{match[1]} ends before the member does")
        file.write(content)
    elif match := _CELL.fullmatch(path):
        file.write(tables.sound(match[1], int(match[2])))
    else:
        place, name = store.of_file(path)
        if (
            duration is not None
            and Path(path).suffix.lower() == ".wav"
            and _slice(file, place, name, start, duration)
        ):
            return
        file.write(place.read(name))


def _slice(file: IO[bytes], place: store.Store, name: str, start: float, duration: float) -> bool:
    """A file as long that holds the header and the slice, and holes elsewhere; False if it may not."""
    size = place.size(name)
    head = place.read(name, 0, min(size, _HEAD_BYTES))
    format_at, data_at = head.find(b"fmt "), head.find(b"data")
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE" or not 0 < format_at < data_at:
        return False
    code = int.from_bytes(head[format_at + 8 : format_at + 10], "little")
    if code not in (1, 3, 0xFFFE):  # samples of one size each, one after the other
        return False
    rate = int.from_bytes(head[format_at + 16 : format_at + 20], "little")  # bytes a second
    begin = data_at + 8 + int(max(0.0, start - 1.0) * rate)
    end = data_at + 8 + int((start + duration + 1.0) * rate)
    file.write(head)
    file.seek(begin)
    file.write(place.read(name, begin, min(size, end)) if begin < size else b"")
    file.truncate(size)
    return True


def is_there(path: PathLike) -> bool:
    """Whether there is such a file, or the tar that it lies in; of a far one that is not asked."""
    file = _file_of(str(path))
    return store.is_remote(file) or Path(file).is_file()


def _file_of(name: str) -> str:
    """The file that holds it: of a member its tar."""
    match = _MEMBER.fullmatch(name) or _CELL.fullmatch(name) if "::" in name else None
    return match[1] if match else name


def print_of(path: PathLike) -> str:
    """Which recording it is; changes when its file does, or the tar it lies in. Of a far one its address.

    Raises OSError where it is gone.
    """
    name, file = str(path), _file_of(str(path))
    if store.is_remote(file):
        return store.address(name)
    status = Path(file).stat()
    return f"{Path(file).resolve()}{name.removeprefix(file)}|{status.st_size}|{status.st_mtime_ns}"


def size_of(path: PathLike) -> int:
    """Bytes of a file, or of a member; 0 where to know it would be a request."""
    if match := _MEMBER.fullmatch(str(path)):
        return int(match[3])
    if is_held(path):
        return 0
    with suppress(OSError, ValueError):
        return Path(path).stat().st_size
    return 0
