"""What has been done in an output folder, so that a second run does only what is missing.

`OUT/.speech_peft/ledger.jsonl` is append-only, a line for each step of an input. Commands and processes share
it: every line names its command, and lines are appended under a lock. It knows each file that was written by
its content, so that what others made, or changed since, is never replaced.
"""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..audio.containers.held import is_held, print_of
from ..files import json_text

FOLDER = ".speech_peft"
WRITING = "writing"
"""The status of a line that comes before its outputs: a run that is killed knows them again."""
_SMALL = 1 << 20  # bytes that are read again before a run begins; larger files are when they are replaced
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """The outcome of one input."""

    id: str
    audio: str
    status: str
    """ok, truncated (done, but the file is shorter than it says), failed, or writing."""
    fingerprint: str
    settings: str
    outputs: Mapping[str, int]
    """Path below the output folder -> bytes."""
    audio_seconds: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    stage: str = ""
    command: str = ""
    """transcribe, classify, restore; "" in ledgers of before."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Path below the output folder -> sha256, its first half."""


class Last(NamedTuple):
    """What is held of the last outcome of an input: of a million there is a million of these."""

    status: str
    fingerprint: str
    settings: str
    line: int


class _Made(NamedTuple):
    """A file and what it was last made from."""

    command: str
    id: str
    audio: str
    fingerprint: str
    settings: str
    bytes: int


class Ledger:
    """What the lines say; the last one of an input counts, for each command and output."""

    def __init__(self, out: Path, command: str = ""):
        self.out, self.command, self.path = out, command, out / FOLDER / "ledger.jsonl"
        self.entries: dict[str, Last] = {}
        """The last outcome of this command, by input."""
        self.lines = 0
        """How many have been read; a run tells by it what others did since it was planned."""
        self._made: dict[str, _Made] = {}
        self._contents: dict[str, str] = {}  # all that was ever written under a name, by digest
        self._read_to = 0
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read what was appended since, by this process or by others."""
        with self._lock:
            try:
                with open(self.path, "rb") as file:  # opened anew: a shared file system then asks its server
                    file.seek(self._read_to)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break  # being written, or the last one of a run that was killed
                        self._read_to += len(line)
                        self.lines += 1
                        if (entry := _parsed(line)) is not None:
                            self._take(entry)
            except FileNotFoundError:
                return

    def _take(self, entry: Entry) -> None:
        command, settings = sys.intern(entry.command), sys.intern(entry.settings)  # the same of all lines
        ours = command in ("", self.command)
        if ours and entry.status != WRITING:
            status = sys.intern(entry.status)
            self.entries[entry.id] = Last(status, entry.fingerprint, settings, self.lines)
        done = entry.status in ("ok", "truncated")
        for name, size in entry.outputs.items():
            content = entry.digests.get(name, f"size:{size}")
            before = self._contents.get(name, "")
            if content not in before.split():
                self._contents[name] = f"{before} {content}".lstrip()
            if done or name not in self._made:
                of = (entry.fingerprint, settings) if done else ("", "")
                self._made[name] = _Made(command, entry.id, entry.audio, *of, size)

    def add(self, entry: Entry) -> None:
        """The line is on the disk when this returns. Raises OSError where it cannot be written."""
        append(self.path, asdict(entry))
        self.refresh()

    def why_not_done(self, id: str, fingerprint: str, settings: str, name: str) -> str | None:
        """None when the output is there, whole, and made from this input with these settings."""
        made, entry = self._made.get(name), self.entries.get(id)
        if (
            entry is not None
            and entry.status == "failed"
            and (entry.fingerprint, entry.settings) == (fingerprint, settings)
        ):
            return "failed before"
        if made is None or made.id != id or made.command not in ("", self.command):
            return "new" if entry is None or entry.status == "failed" else f"no {name} yet"
        if not made.fingerprint:
            return "not finished before"
        if made.fingerprint != fingerprint:
            return "input changed"
        if made.settings != settings:
            return "settings changed"
        try:
            size = os.stat(self.out / name).st_size
        except OSError:
            return f"{name} is missing"
        return None if size == made.bytes else f"{name} was changed"

    def in_the_way(self, name: str, id: str, audio: Path, whole: bool = True) -> str | None:
        """Why a file that is there must not be replaced; None where there is none, or where it is ours.

        Its content is compared, where `whole` is False only if that takes no time.
        """
        path = self.out / name
        try:
            size = os.lstat(path).st_size
        except OSError:
            return None  # writing it says what else is wrong
        if not size and path.is_file():
            return None  # nothing would be lost
        made = self._made.get(name)
        if made is None or not self._contents.get(name):
            return f"{name} is there and was not made here; {_INSTEAD}"
        if made.command not in ("", self.command):
            return f"{name} is there and was made by {made.command}; {_INSTEAD}"
        if made.id != id or self._other_recording(made, audio):
            return f"{name} is there and was made of {made.audio}; {_INSTEAD}"
        known = self._contents[name].split()
        if f"size:{size}" in known or (size == made.bytes and not whole and size > _SMALL):
            return None
        if not path.is_symlink() and digest_of(path) in known:
            return None
        return f"{name} was changed since it was made; {_INSTEAD}"

    @staticmethod
    def _other_recording(made: _Made, audio: Path) -> bool:
        """Whether an output was made of a recording of the same name elsewhere, which is still there."""
        if not os.path.isabs(made.audio) or made.audio == os.path.abspath(audio):
            return False
        try:
            return not os.path.samefile(made.audio, audio) and fingerprint(audio) != fingerprint(
                Path(made.audio)
            )
        except (OSError, ValueError):
            return False


_INSTEAD = "--overwrite replaces it, --name-template or another folder keeps both"


def reserved(name: str) -> bool:
    """Whether an output of this name would lie among the ledger's own files, here or in a folder below."""
    return any(part.casefold().rstrip(". ") == FOLDER for part in PurePosixPath(name).parts)


def digest_of(content: Path | bytes) -> str | None:
    """Half of the sha256 of a file or of its content; None where the file cannot be read."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()[:32]
    try:
        with open(content, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError:
        return None


_TYPES = {
    "outputs": dict,
    "digests": dict,
    "audio_seconds": (int, float),
    "seconds": (int, float),
    "error": (str, type(None)),
}


def _parsed(line: bytes) -> Entry | None:
    """None for a line that says nothing: half of one, of a run that was killed, or none of ours."""
    row = json_text.logged(line)
    if row is None:
        return None
    known = {one.name: row[one.name] for one in fields(Entry) if one.name in row}
    try:
        entry = Entry(**known)
    except TypeError:  # a field is missing
        return None
    if not all(isinstance(value, _TYPES.get(name, str)) for name, value in known.items()):
        return None
    sizes = all(isinstance(size, int) for size in entry.outputs.values())
    digests = all(isinstance(digest, str) for digest in entry.digests.values())
    return entry if sizes and digests else None


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One JSON line, written in one call and synced; never half a line between two others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row) + "\n").encode("ascii")  # names that are not UTF-8 survive as surrogates
    with _locked(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                line = b"\n" + line  # behind half a line of a run that was killed
            written = os.write(descriptor, line)
            while written < len(line):  # a disk that is nearly full takes a part, and then says so
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Appending is one write on a disk of this machine, but not on that of another."""
    from filelock import FileLock

    lock = FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except NotImplementedError:  # a file system without locks: one process at a time may write to it
        yield
        return
    try:
        yield
    finally:
        lock.release()


def fingerprint(path: Path, start: float = 0.0, duration: float | None = None) -> str:
    """Changes when the input does: its size, its time and the slice that is used."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            return f"{print_of(path)}:{start}:{duration}" if is_held(path) else ""
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{start}:{duration}"


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Of everything that decides the outputs."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def outputs_of(written: Sequence[tuple[str, int, str]]) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes and digests by name, of (name, bytes, digest)."""
    return {name: size for name, size, _ in written}, {name: digest for name, _, digest in written}
