"""Speech Commands v0.02 as it is unpacked: `WORD/SPEAKER_nohash_N.wav` and the two lists of the split.

105,829 clips of up to 1 s, 35 words. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech
Recognition", arXiv 1804.03209. `validation_list.txt` and `testing_list.txt` name clips as `WORD/FILE`; what
neither names is for training. `_background_noise_` holds long recordings without words and is left out.
"""

from pathlib import Path

from ...audio import manifest
from ...audio.manifest import Row
from ...audio.rows import text
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, measured, silent, write_parts

_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}


@CORPORA.register("speech-commands")
def prepare(root: str | Path, out: str | Path | None = None, *, progress: Progress = silent) -> Prepared:
    """`OUT/{train,valid,test}.jsonl` in the official split; the word is label and text."""
    root = Path(root)
    if missing := [name for name in _LISTS.values() if not (root / name).exists()]:
        raise ConfigError(f"{root}: no {' and no '.join(missing)}; give the unpacked Speech Commands v0.02")
    rows = {name: _row(root, root / name) for name in _clips(root)}
    parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    part_of: dict[str, str] = {}
    for part, listed in _LISTS.items():
        for line, cell in text.lines(root / listed):
            name = cell.strip()
            if name not in rows:
                raise ConfigError(f"{root / listed}:{line}: there is no recording {name}")
            if part_of.setdefault(name, part) != part:
                raise ConfigError(f"{root / listed}:{line}: {name} is in {_LISTS[part_of[name]]} too")
    for name, row in rows.items():
        parts[part_of.get(name, "train")].append(row)
    done = 0
    for part, found in parts.items():
        parts[part] = measured(found, len(rows), progress, done)
        done += len(found)
    return write_parts(Path(out) if out else root, parts, {"corpus": "speech-commands"})


def _clips(root: Path) -> list[str]:
    """`WORD/FILE` of every clip below a word's folder."""
    words = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    words = [folder for folder in words if not folder.name.startswith(("_", "."))]
    return [file.relative_to(root).as_posix() for folder in words for file in manifest.recordings(folder)]


def _row(root: Path, audio: Path) -> Row:
    word, speaker = audio.parent.name, audio.stem.partition("_nohash_")[0]
    name = audio.relative_to(root).with_suffix("").as_posix()
    return Row(name, audio, text=word, label=word, speaker=speaker, lang="en")
