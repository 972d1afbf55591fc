"""ESC-50 as it is unpacked: `meta/esc50.csv` and `audio/*.wav`; 2,000 clips of 5 s, 50 classes, 5 folds.

Karol J. Piczak, "ESC: Dataset for Environmental Sound Classification", 2015. Clips cut from one source
recording share a fold, so folds are the only fair split. ESC-10 is the part of it marked `esc10`.
"""

from dataclasses import replace
from pathlib import Path

from ...audio import manifest
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, measured, number, silent, write_parts

_COLUMNS = {"audio": "filename", "label": "category"}


@CORPORA.register("esc50")
def prepare(
    root: str | Path, out: str | Path | None = None, *, esc10: bool = False, progress: Progress = silent
) -> Prepared:
    """`OUT/all.jsonl`, or `OUT/esc10.jsonl`, of all folds, with `fold`, `target`, `src_file` and `take`."""
    root = Path(root)
    table = root / "meta" / "esc50.csv"
    if not table.exists() or not (root / "audio").is_dir():
        raise ConfigError(f"{root}: no meta/esc50.csv beside a folder audio; give the unpacked ESC-50")
    rows = []
    for row in manifest.read(table, _COLUMNS):
        extra = {name: number(str(cell)) for name, cell in row.extra.items()}
        of_ten = str(extra.pop("esc10", False)).lower() == "true"
        if of_ten or not esc10:
            audio = root / "audio" / row.audio.name
            rows.append(replace(row, id=audio.stem, audio=audio, extra=extra))
    if not rows:
        raise ConfigError(f"{table}: marks no clip as esc10")
    parts = {"esc10" if esc10 else "all": measured(rows, len(rows), progress)}
    return write_parts(Path(out) if out else root, parts, {"corpus": "esc50"})
