"""Fluent Speech Commands as it is unpacked: `data/{train,valid,test}_data.csv` and `wavs/speakers/*/*.wav`.

30,043 spoken commands of 97 speakers; the three tables share no speaker. Lugosch et al., "Speech Model
Pre-training for End-to-End Spoken Language Understanding", arXiv 1904.03670. An intent is the triple of
action, object and location: 31 occur, and one counts as right only if all three are.
"""

from dataclasses import replace
from pathlib import Path

from ...audio import manifest
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, measured, silent, write_parts

_COLUMNS = {"audio": "path", "text": "transcription", "speaker": "speakerId"}
_SLOTS = ("action", "object", "location")


@CORPORA.register("fluent-speech-commands")
def prepare(root: str | Path, out: str | Path | None = None, *, progress: Progress = silent) -> Prepared:
    """`OUT/{train,valid,test}.jsonl`; the label is `action/object/location`, such as `activate/lamp/none`."""
    root = Path(root)
    tables = {part: root / "data" / f"{part}_data.csv" for part in ("train", "valid", "test")}
    if missing := [f"data/{table.name}" for table in tables.values() if not table.exists()]:
        raise ConfigError(
            f"{root}: no {' and no '.join(missing)}; give the unpacked fluent_speech_commands_dataset"
        )
    found = {part: _rows(root, table) for part, table in tables.items()}
    total, done = sum(map(len, found.values())), 0
    parts: dict[str, list[Row]] = {}
    for part, rows in found.items():
        parts[part] = measured(rows, total, progress, done)
        done += len(rows)
    return write_parts(Path(out) if out else root, parts, {"corpus": "fluent-speech-commands"})


def _rows(root: Path, table: Path) -> list[Row]:
    rows = []
    for row in manifest.read(table, _COLUMNS):
        path = row.audio.relative_to(table.parent)  # as the table writes it: from the corpus' own folder
        if missing := [slot for slot in _SLOTS if slot not in row.extra]:
            raise ConfigError(f"{table}: no column {', '.join(missing)}; found: {', '.join(row.extra)}")
        slots = {slot: row.extra[slot] for slot in _SLOTS}
        name = Path(*path.parts[-2:]).with_suffix("").as_posix()  # SPEAKER/UTTERANCE
        label = "/".join(slots.values())
        rows.append(replace(row, id=name, audio=root / path, label=label, lang="en", extra=slots))
    return rows
