"""Mozilla Common Voice as it is unpacked: `train.tsv`, `dev.tsv`, `test.tsv` and the folder `clips`."""

from dataclasses import replace
from pathlib import Path

from ...audio import io, manifest
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, silent, write_parts

_PARTS = {"train": "train", "dev": "valid", "test": "test"}  # theirs -> ours
_COLUMNS = {"audio": "path", "text": "sentence", "speaker": "client_id"}


@CORPORA.register("common-voice")
def prepare(root: str | Path, out: str | Path | None = None, *, progress: Progress = silent) -> Prepared:
    """`OUT/{train,valid,test}.jsonl` of one language's folder, in its own split; recordings stay in place."""
    root = Path(root)
    tables = {
        ours: root / f"{theirs}.tsv" for theirs, ours in _PARTS.items() if (root / f"{theirs}.tsv").exists()
    }
    if not tables or not (root / "clips").is_dir():
        raise ConfigError(
            f"{root}: no train.tsv, dev.tsv or test.tsv beside a folder clips; give a language's folder"
        )
    seconds = _durations(root / "clip_durations.tsv")
    found = {part: manifest.read(table, _COLUMNS) for part, table in tables.items()}
    total, done = sum(map(len, found.values())), 0
    parts: dict[str, list[Row]] = {part: [] for part in found}
    for part, rows in found.items():
        for row in rows:
            audio = root / "clips" / row.audio.name
            length = seconds.get(audio.name) or io.info(audio).seconds
            parts[part].append(replace(row, id=audio.stem, audio=audio, duration=length, extra={}))
            done += 1
            progress(done, total)
    return write_parts(Path(out) if out else root, parts, {"corpus": "common-voice"})


def _durations(table: Path) -> dict[str, float]:
    """Recording -> seconds, from the table (in milliseconds) that later releases carry."""
    if not table.exists():
        return {}
    lines = table.read_text(encoding="utf-8").splitlines()[1:]
    cells = (line.split("\t") for line in lines if line)
    return {name: float(milliseconds) / 1000 for name, milliseconds, *_ in cells}
