"""UrbanSound8K as it is unpacked: `metadata/UrbanSound8K.csv` and `audio/fold1` to `fold10`.

8,732 excerpts of up to 4 s, 10 classes. Salamon, Jacoby, Bello, "A Dataset and Taxonomy for Urban Sound
Research", 2014. Excerpts of one recording (`fsID`) share a fold: its authors warn against shuffling them.
"""

from dataclasses import replace
from pathlib import Path

from ...audio import manifest
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, measured, number, silent, write_parts

_COLUMNS = {"audio": "slice_file_name", "label": "class"}


@CORPORA.register("urbansound8k")
def prepare(root: str | Path, out: str | Path | None = None, *, progress: Progress = silent) -> Prepared:
    """`OUT/all.jsonl` of all folds, with `fold`, `fsID`, `salience` and `classID`."""
    root = Path(root)
    table = root / "metadata" / "UrbanSound8K.csv"
    if not table.exists():
        raise ConfigError(f"{root}: no metadata/UrbanSound8K.csv; give the unpacked UrbanSound8K")
    rows = []
    for row in manifest.read(table, _COLUMNS):
        extra = {name: number(str(cell)) for name, cell in row.extra.items() if name != "end"}
        if "fold" not in extra:
            raise ConfigError(f"{table}: no column 'fold'; found: {', '.join(row.extra)}")
        audio = root / "audio" / f"fold{extra['fold']}" / row.audio.name
        # The table's `start` and `end` lie in the source recording; the file is the excerpt already.
        rows.append(replace(row, id=audio.stem, audio=audio, start=0.0, extra=extra))
    parts = {"all": measured(rows, len(rows), progress)}
    return write_parts(Path(out) if out else root, parts, {"corpus": "urbansound8k"})
