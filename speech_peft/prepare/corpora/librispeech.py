"""LibriSpeech and all in its layout: `SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` beside the FLACs."""

from pathlib import Path

from ...audio import io
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, silent, write_parts

_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3")


@CORPORA.register("librispeech")
def prepare(root: str | Path, out: str | Path | None = None, *, progress: Progress = silent) -> Prepared:
    """A manifest for each subset in `root` (or for `root` itself, if it is one); recordings stay in place."""
    root = Path(root)
    subsets: dict[str, list[Path]] = {}
    for transcript in sorted(root.rglob("*.trans.txt")):
        below = transcript.relative_to(root).parts
        subsets.setdefault(below[-4] if len(below) > 3 else root.name, []).append(transcript)
    if not subsets:
        raise ConfigError(f"{root}: no SUBSET/SPEAKER/CHAPTER/*.trans.txt below it")
    total = sum(len(transcripts) for transcripts in subsets.values())
    parts: dict[str, list[Row]] = {}
    done = 0
    for subset, transcripts in subsets.items():
        parts[subset] = []
        for transcript in transcripts:
            parts[subset] += _chapter(transcript)
            done += 1
            progress(done, total)
    return write_parts(Path(out) if out else root, parts, {"corpus": "librispeech"})


def _chapter(transcript: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(transcript.read_text(encoding="utf-8").splitlines(), 1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        candidates = [transcript.parent / f"{name}{suffix}" for suffix in _SUFFIXES]
        audio = next((path for path in candidates if path.exists()), None)
        if audio is None:
            raise ConfigError(f"{transcript}:{number}: no recording of {name} beside it")
        seconds = io.info(audio).seconds
        rows.append(
            Row(name, audio, duration=seconds, text=text.strip(), speaker=name.partition("-")[0], lang="en")
        )
    return rows
