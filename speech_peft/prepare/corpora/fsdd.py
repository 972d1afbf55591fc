"""The Free Spoken Digit Dataset: `recordings/DIGIT_SPEAKER_INDEX.wav`, 8 kHz; or `DIGIT/SPEAKER_INDEX.wav`.

Zohar Jackson et al., CC BY-SA 4.0; 50 recordings of each digit by each speaker. Its own split tests on the
recordings 0 to 4 of every speaker and digit. The harder question, a voice never heard, is asked of
`all.jsonl` with `train_where: {speaker: [...]}`.
"""

import re
from pathlib import Path

from ...audio import manifest
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, measured, silent, write_parts

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAME = re.compile(r"(?:(?P<digit>\d)_)?(?P<speaker>[^\W\d_]\w*?)_(?P<index>\d+)")
_TESTED = range(5)  # the README of the corpus: "the first 10% of the recordings"


@CORPORA.register("fsdd")
def prepare(root: str | Path, out: str | Path | None = None, *, progress: Progress = silent) -> Prepared:
    """`OUT/{train,test}.jsonl` in the official split and `OUT/all.jsonl`, each with `speaker` and `index`."""
    root = Path(root)
    top = root / "recordings" if (root / "recordings").is_dir() else root
    files = manifest.recordings(top)
    if not files:
        raise ConfigError(f"{top}: no recording below it; give the unpacked Free Spoken Digit Dataset")
    rows = measured([_row(top, file) for file in files], len(files), progress)
    parts = {
        "train": [row for row in rows if row.extra["index"] not in _TESTED],
        "test": [row for row in rows if row.extra["index"] in _TESTED],
        "all": rows,
    }
    return write_parts(Path(out) if out else root, parts, {"corpus": "fsdd"})


def _row(top: Path, file: Path) -> Row:
    name = _NAME.fullmatch(file.stem)
    folder = file.parent.name.lower() if file.parent != top else ""
    folder = str(_WORDS.index(folder)) if folder in _WORDS else folder
    digit = (name and name["digit"]) or folder
    if name is None or digit not in tuple("0123456789"):
        raise ConfigError(
            f"{file}: expected DIGIT_SPEAKER_INDEX.wav, or SPEAKER_INDEX.wav in a digit's folder"
        )
    if folder.isdecimal() and folder != digit:
        raise ConfigError(f"{file}: its name says {digit}, its folder says {folder}")
    return Row(
        file.relative_to(top).with_suffix("").as_posix(),
        file,
        text=_WORDS[int(digit)],
        label=digit,
        speaker=name["speaker"],
        lang="en",
        extra={"index": int(name["index"])},
    )
