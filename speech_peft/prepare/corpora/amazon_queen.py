"""Flight of the Amazon Queen: 4.5 hours of acted English by 31 speakers, 11 kHz, with the words they say.

An adventure game of 1995, free to copy and change, in Debian as `flight-of-the-amazon-queen`. Its one
file, `queen.1c`, is a table of named entries: `.SB` holds a clip (MP3), `.DOG` a dialogue between JOE and the
person whose name the entry has, `.CUT` a cut scene whose speakers nobody names, `QUEEN2.JAS` JOE's remarks. A
line of text and the clip that speaks it share a name that the game derives from where the line stands.

Speakers are kept apart: six are for the test, two for validation. Clips of cut scenes may be anybody's, so
they are left out unless asked for, and then they are for training. Left out as well are clips without words
(`(sigh)`, `Hmmm...`, an ape among apes, the language of a village, SPARKY gagged) and those whose text cannot
be theirs, at more than six words a second or fewer than one in two. Marks for the game (`^_`, `@@`) go from
the texts.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...audio import io
from ...audio.manifest import Row
from ...errors import ConfigError
from ...files import atomic
from ...registry import CORPORA
from . import debian
from .base import Prepared, Progress, Split, plausible, reuse, silent, worded, write_parts

PACKAGE = "flight-of-the-amazon-queen"
INSTALLED = Path("/usr/share/scummvm") / PACKAGE / "queen.1c"
TEST = frozenset({"FAYE", "HENRY", "NAOMI", "PRIN", "TAM", "ORACLE"})
VALID = frozenset({"LOU", "KLUNK"})
HERO, UNKNOWN = "JOE", "?"
_NO_LANGUAGE = re.compile(r"(?i)\b([cskw]?h?|war)ung(a|h|ha)\b|\b(wh)?o+p\b|\btusani\b|\bt[au]wanga\b")
_CORPUS = "amazon-queen/2"
_DOG_HEADER, _DOG_LEVEL = 32, 96  # bytes before JOE's lines: those of a file, those of each level of its tree


@dataclass(frozen=True)
class Line:
    """What is said in one clip."""

    speaker: str
    text: str


@CORPORA.register("amazon-queen")
def prepare(
    out: str | Path,
    *,
    sources: Sequence[str | Path] = (),
    unknown: bool = False,
    progress: Progress = silent,
) -> Prepared:
    """Write `OUT/audio/*.mp3` and `OUT/{train,valid,test}.jsonl`; a complete earlier result is reused.

    Without `sources` (a .deb or a `queen.1c`) the installed game is used; where there is none
    `apt-get download` fetches the package (35 MB) into a temporary folder, and nothing is installed.
    `unknown` adds the clips whose speaker is not known to the training part.
    """
    out = Path(out)
    stamp = {"corpus": _CORPUS, "unknown": unknown, "sources": [str(source) for source in sources]}
    if earlier := reuse(out, stamp):
        return earlier
    entries = read_entries(_archive([Path(source) for source in sources]))
    lines = {name: line for name, line in read_lines(entries).items() if unknown or line.speaker != UNKNOWN}
    parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for done, (name, line) in enumerate(sorted(lines.items()), 1):
        audio = out / "audio" / f"{name.removesuffix('.SB').lower()}.mp3"
        with atomic.atomic_path(audio) as temporary:
            temporary.write_bytes(entries[name])
        seconds = io.info(audio).seconds
        if plausible(line.text, seconds):
            row = Row(audio.stem, audio, duration=seconds, text=line.text, speaker=line.speaker, lang="en")
            parts[split_of(line.speaker)].append(row)
        else:
            audio.unlink()
        progress(done, len(lines))
    return write_parts(out, parts, stamp)


def split_of(speaker: str) -> Split:
    """All clips of a speaker are in one part."""
    return "test" if speaker in TEST else "valid" if speaker in VALID else "train"


def clean(text: str) -> str:
    """The words of a sentence, without marks for the game and sounds that no word is made of.

    >>> clean("@@ She's in love^_. @@"), clean("(sigh)"), clean("Well <gulp> no")
    ("She's in love.", '', 'Well no')
    """
    return " ".join(re.sub(r"\([^()]*\)|<[^<>]*>|@@|\^_", "", text).split())


# ---------------------------------------------------------------- the game's file


def _archive(sources: Sequence[Path]) -> bytes:
    """The bytes of `queen.1c`."""

    def wanted(path: str) -> bool:
        return path.endswith("/queen.1c") or path == "queen.1c"

    manual = f"pass {PACKAGE}_*.deb or its queen.1c as --source"
    files = debian.contents(
        [PACKAGE],
        wanted,
        sources=sources,
        installed=[INSTALLED] if INSTALLED.exists() else [],
        corpus="amazon-queen",
        manual=manual,
    )
    for _, content in files:
        return content
    raise ConfigError(f"{', '.join(map(str, sources))}: no queen.1c among them; {manual}")


def read_entries(archive: bytes) -> dict[str, bytes]:
    """The entries of `queen.1c` by name.

    Raises ConfigError where it is something else or damaged.
    """
    if archive[:4] != b"QTBL":
        raise ConfigError("queen.1c: does not begin with QTBL; the file of the talkie version is wanted")
    try:
        (count,) = struct.unpack_from(">H", archive, 13)
        entries = {}
        for at in range(15, 15 + 21 * count, 21):
            name, _bundle, offset, size = struct.unpack_from(">12sBII", archive, at)
            entries[name.rstrip(b"\0").decode("latin-1")] = archive[offset : offset + size]
    except struct.error as error:
        raise ConfigError(f"queen.1c: its table of entries is cut off ({error})") from error
    return entries


def read_lines(entries: Mapping[str, bytes]) -> dict[str, Line]:
    """Clip -> what is said in it, for all clips whose words the game tells."""
    lines: dict[str, Line] = {}
    for name, content in entries.items():
        stem, _, kind = name.rpartition(".")
        if kind == "DOG":
            spoken = _dialogue(content, stem.rstrip("0123456789"))
        elif kind == "CUT":
            spoken = _cut_scene(content, stem)
        elif name == "QUEEN2.JAS":
            spoken = _remarks(content)
        else:
            continue
        try:
            for prefix, line in spoken:
                for number, text in _sentences(line.text):
                    clip = f"{prefix.replace(' ', '0')}{number:x}".upper() + ".SB"
                    text = clean(text)
                    if clip in entries and worded(text) and not _NO_LANGUAGE.search(text):
                        lines[clip] = Line(line.speaker, text)
        except (struct.error, IndexError) as error:
            raise ConfigError(f"queen.1c: its entry {name} is cut off ({error})") from error
    return lines


Spoken = Iterator[tuple[str, Line]]  # a clip's name less the sentence's number, and the whole line


def _dialogue(content: bytes, who: str) -> Spoken:
    """Lines of a `.DOG`: each has an id, and stands where the header says that the speaker's lines begin."""
    body = content[20:]
    levels, key, heros, theirs = abs(_int16(body, 0)), _int16(body, 4), _int16(body, 6), _int16(body, 8)
    their_start, _, end = struct.unpack_from(">HHH", body, 22)
    hero_start = _DOG_HEADER + levels * _DOG_LEVEL
    for at, count, tag, speaker in ((their_start, theirs, "P", who), (hero_start, heros, "J", HERO)):
        for _ in range(count):
            line_id = _int16(body, at + 2) & 0xFFFF
            text, at = _string(body, at + 4, align=4)
            yield f"{key:2d}{line_id:4x}{tag}", Line(speaker, text)
    if not _int16(body, hero_start + 2):  # no choice: JOE begins by himself
        yield f"{key:2d}SSSSJ", Line(HERO, _string(body, hero_start + 4)[0])
    for tag, speaker in (("P", who), ("J", HERO)):  # what is said when nothing is left to say
        text, end = _string(body, end)
        yield f"{key:2d}XXXX{tag}", Line(speaker, text)


def _cut_scene(content: bytes, stem: str) -> Spoken:
    """Sentences of a `.CUT`, one for each step of the scene."""
    body = content[20:]
    count, (at,) = abs(_int16(body, 2)), struct.unpack_from(">H", body, 8)
    _, at = _string(body, at)
    for step in range(1, count + 1):
        text, at = _string(body, at)
        if text != "EXIT":
            yield f"{stem:_<5}{step:02d}", Line(UNKNOWN, text)


def _remarks(content: bytes) -> Spoken:
    """Lines of `QUEEN2.JAS`; the clips count from another start."""
    for number, text in enumerate(content.decode("cp850").replace("\r", "").split("\n"), 1):
        yield f"JOE{number + 40:04d}", Line(HERO, text)


def _sentences(line: str) -> Iterator[tuple[int, str]]:
    """The parts of a line that have a clip each, numbered from 1.

    `*` and a code of two letters end a part, or `*XY` and eleven more.
    """
    yield from enumerate(re.split(r"(?s)\*(?:XY.{0,11}|.{0,2})", line), 1)


def _string(content: bytes, at: int, align: int = 2) -> tuple[str, int]:
    """The text whose length stands in one byte at `at`, and where the next thing stands."""
    length, at = content[at], at + 1
    if not length:
        return "", at
    return content[at : at + length].decode("cp850"), (at + length + align - 1) & ~(align - 1)


def _int16(content: bytes, at: int) -> int:
    (value,) = struct.unpack_from(">h", content, at)
    return value
