"""What has been done in an output folder: one line a file, so that a second run does only what is missing."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = ".speech_peft"


@dataclass(frozen=True)
class Entry:
    """The outcome of one input."""

    id: str
    audio: str
    status: str
    """ok, truncated (done, but the file is shorter than it says) or failed."""
    fingerprint: str
    settings: str
    outputs: Mapping[str, int]
    """Path below the output folder -> bytes."""
    audio_seconds: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    stage: str = ""


class Ledger:
    """`OUT/.speech_peft/ledger.jsonl`, append-only; the last line of an input counts."""

    def __init__(self, out: Path):
        self.out, self.path = out, out / FOLDER / "ledger.jsonl"
        self.entries: dict[str, Entry] = {}
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        self._torn = bool(content) and not content.endswith(b"\n")
        for line in content.splitlines():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the last line of a run that was killed
            self.entries[entry.id] = entry

    def add(self, entry: Entry) -> None:
        """The line is on the disk when this returns; outputs must be before."""
        self.entries[entry.id] = entry
        append(self.path, asdict(entry), after_torn=self._torn)
        self._torn = False

    def why_not_done(self, id: str, fingerprint: str, settings: str, outputs: list[str]) -> str | None:
        """None when every output is there, whole, and made from this input with these settings."""
        entry = self.entries.get(id)
        if entry is None:
            return "new"
        if entry.status == "failed":
            return "failed before"
        if entry.fingerprint != fingerprint:
            return "input changed"
        if entry.settings != settings:
            return "settings changed"
        for name in outputs:
            if name not in entry.outputs:
                return f"no {name} yet"
            try:
                size = os.stat(self.out / name).st_size
            except OSError:
                return f"{name} is missing"
            if size != entry.outputs[name]:
                return f"{name} was changed"
        return None


def append(path: Path, row: Mapping[str, Any], after_torn: bool = False) -> None:
    """One JSON line, written in one call and synced; never half a line between two others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row) + "\n"  # ASCII: names that are not UTF-8 survive as surrogates
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (("\n" if after_torn else "") + line).encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(path: Path, start: float = 0.0, duration: float | None = None) -> str:
    """Changes when the input does: its size, its time and the slice that is used."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{start}:{duration}"


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Of everything that decides the outputs."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
