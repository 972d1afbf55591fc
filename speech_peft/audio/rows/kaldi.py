"""Kaldi's data folders: `wav.scp`, and `segments`, `text`, `utt2spk`, `utt2lang` as far as they are there."""

from collections.abc import Iterator
from pathlib import Path

from ...errors import ConfigError, did_you_mean
from .row import Row, path_text, resolve, seconds
from .text import lines


def read(folder: Path) -> list[Row]:
    """The rows of `segments`, or of `wav.scp` where there is none; paths start at the folder."""
    scp = folder / "wav.scp"
    waves = {name: (number, rest) for number, name, rest in _keyed(scp)}
    for number, rest in waves.values():
        if rest.endswith("|"):
            raise ConfigError(
                f"{scp}:{number}: {rest!r} is a shell command; it is not run. Convert it to a recording first"
            )
    texts, speakers, langs = (
        {name: rest for _, name, rest in _keyed(folder / file)} if (folder / file).exists() else {}
        for file in ("text", "utt2spk", "utt2lang")
    )

    def row(name: str, audio: str, start: float = 0.0, duration: float | None = None) -> Row:
        path = resolve(folder, path_text(f"{scp}: {name}", "audio", audio))
        text, speaker, lang = texts.get(name), speakers.get(name), langs.get(name)
        return Row(name, path, start, duration, text=text, speaker=speaker, lang=lang)

    segments = folder / "segments"
    if not segments.exists():
        return [row(name, rest) for name, (_, rest) in waves.items()]
    rows = []
    for number, name, rest in _keyed(segments):
        where = f"{segments}:{number}"
        recording, *times = rest.split()
        if len(times) < 2:
            raise ConfigError(f"{where}: expected 'utterance recording start end', got '{name} {rest}'")
        if recording not in waves:
            raise ConfigError(
                f"{where}: recording {recording!r} is not in wav.scp. {did_you_mean(recording, waves)}"
            )
        start, duration = seconds(where, "start", times[0]), None
        if times[1] not in ("-1", "-1.0"):  # Kaldi: the end of the recording
            duration = seconds(where, "duration", seconds(where, "end", times[1]) - start)
        rows.append(row(name, waves[recording][1], start, duration))
    return rows


def _keyed(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, first word, rest; a first word that comes twice is refused."""
    seen: dict[str, int] = {}
    for number, line in lines(path):
        name, _, rest = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if name in seen:
            raise ConfigError(f"{path}:{number}: {name!r} was already on line {seen[name]}")
        seen[name] = number
        yield number, name, rest.strip()
