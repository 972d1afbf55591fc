"""Fish Fillets: 1.7 hours of acted Czech or 1.5 of Dutch, with the words said and the same in English.

A puzzle game of 1998 whose fish talk, free under the GPL 2, in Debian as `fillets-ng-data` (the texts) and
`fillets-ng-data-cs`, `-nl` (the sound). `script/LEVEL/*_LANG.lua` pairs an id and a character with a sentence
in English (`dialogId`) and in the language (`dialogStr`); `sound/LEVEL/[...]/LANG/ID.ogg` speaks it. Who
speaks is told by the colour of the subtitle (`font_big`), so some colours are several characters, and an
actor may have lent a voice to several colours. The English goes into the column `english`, the level
into `scene`.

Speakers are kept apart. Czech: the two fish are for training, all others for validation and test. In Dutch
only the two fish were recorded: the big one is for training (a tenth of its sentences for validation), the
small one is the test. Left out are clips without words, those that the game puts together with a number it
counts (`C%1`), texts in another alphabet, recordings that another level has too, and clips whose text cannot
be theirs, at fewer than one letter a second or more than seventeen.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...audio import io
from ...audio.manifest import Row
from ...errors import ConfigError
from ...files import atomic
from ...registry import CORPORA
from . import base, debian
from .base import Prepared, Progress, Split, reuse, silent, worded, write_parts

INSTALLED = Path("/usr/share/games/fillets-ng")
FISH = frozenset({"font_big", "font_small", "font_both"})
VALID = frozenset(
    f"font_{name}"
    for name in ("lightgrey", "white", "linuxer1", "darkgrey", "snail", "pizla", "magenta", "brown")
)
LETTERS_A_SECOND = (1.0, 17.0)
_CORPUS = "fillets/1"
_STRING = r'\s*"((?:[^"\\]|\\.)*)"\s*'
_PAIR = re.compile(  # dialogId("id", "font", "English")  dialogStr("the language")
    rf"^\s*dialogId\({_STRING},{_STRING},{_STRING}\)\s*dialogStr\({_STRING}\)", re.MULTILINE
)


@dataclass(frozen=True)
class Line:
    """What is said in one clip."""

    speaker: str
    text: str
    english: str


@CORPORA.register("fillets")
def prepare(
    out: str | Path, *, lang: str = "cs", sources: Sequence[str | Path] = (), progress: Progress = silent
) -> Prepared:
    """Write `OUT/audio/**.ogg` and `OUT/{train,valid,test}.jsonl`; a complete earlier result is reused.

    Without `sources` (.deb files, or the game's folder) the installed game is used; where there is none
    `apt-get download` fetches both packages (110 MB) into a temporary folder, and nothing is installed.
    """
    out = Path(out)
    stamp = {"corpus": _CORPUS, "lang": lang, "sources": [str(source) for source in sources]}
    if earlier := reuse(out, stamp):
        return earlier
    clips = read_clips(lang, sources)
    parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for done, (name, line, encoded) in enumerate(clips, 1):
        audio = out / "audio" / f"{name}.ogg"
        with atomic.atomic_path(audio) as temporary:
            temporary.write_bytes(encoded)
        seconds = io.info(audio).seconds
        if plausible(line.text, seconds):
            extra = {"english": line.english, "scene": name.rpartition("/")[0]}
            speaker = line.speaker.removeprefix("font_")
            row = Row(name, audio, duration=seconds, text=line.text, speaker=speaker, lang=lang, extra=extra)
            parts[split_of(line, lang)].append(row)
        else:
            audio.unlink()
        progress(done, len(clips))
    return write_parts(out, parts, stamp)


def split_of(line: Line, lang: str) -> Split:
    """All clips of a character are in one part, but for a tenth of the Dutch big fish's."""
    if lang == "nl":
        held_out = base.split_of(line.text, _CORPUS) == "valid"
        return "test" if line.speaker == "font_small" else "valid" if held_out else "train"
    return "train" if line.speaker in FISH else "valid" if line.speaker in VALID else "test"


def plausible(text: str, seconds: float) -> bool:
    """Whether so many letters fit into so much sound."""
    slowest, fastest = LETTERS_A_SECOND
    return bool(seconds) and slowest <= sum(map(str.isalpha, text)) / seconds <= fastest


def clean(text: str) -> str:
    """A sentence as one would write it down: no stutter, no letter thrice, no ellipsis where it begins.

    >>> clean("...B-b-budu o tom u-uvažovat -- Halóóó!")
    'budu o tom uvažovat - Haló!'
    """
    text = re.sub(r"\\(.)", r"\1", fluent(text).replace(r"\n", " ")).replace("--", "-")
    text = re.sub(r"(?i)(\w)\1{2,}", r"\1", text)
    return " ".join(re.sub(r"^[\s.]+", "", text).split())


def fluent(text: str) -> str:
    """A text without the stutter of a viking and the rolled R of a parrot."""
    text = re.sub(r"(?i)\b(?:(\w)-)+(?=\1)", "", text)
    return re.sub(r"(?i)(r)\1{2,}", r"\1", text)


# ---------------------------------------------------------------- the game's files


def read_clips(lang: str, sources: Sequence[str | Path] = ()) -> list[tuple[str, Line, bytes]]:
    """(`LEVEL/ID`, what is said, the recording) of every clip whose words the game tells, by name."""
    lines: dict[tuple[str, str], Line] = {}
    sound: dict[PurePosixPath, bytes] = {}
    for path, content in _files(lang, [Path(source) for source in sources]):
        if path.suffix == ".lua":
            lines |= {(path.parent.name, name): line for name, line in read_lines(content)}
        else:
            below = PurePosixPath(*path.parts[_after(path, "sound") :])
            sound[below.parent.parent / below.stem] = content  # LEVEL/[...]/ID, without the language
    if not lines or not sound:
        missing = "texts (fillets-ng-data)" if not lines else f"recordings (fillets-ng-data-{lang})"
        raise ConfigError(f"{', '.join(map(str, sources)) or INSTALLED}: no {missing} among them")
    heard: set[bytes] = set()
    clips: list[tuple[str, Line, bytes]] = []
    for path, content in sorted(sound.items()):
        line, digest = lines.get((path.parts[0], path.name)), hashlib.sha256(content).digest()
        if line and _is_speech(line) and digest not in heard:
            heard.add(digest)
            clips.append(
                (path.as_posix(), Line(line.speaker, clean(line.text), clean(line.english)), content)
            )
    return clips


def read_lines(script: bytes) -> Iterator[tuple[str, Line]]:
    """Id -> what is said, for the dialogs of one file that are written in its language."""
    for name, speaker, english, text in _PAIR.findall(script.decode("utf-8", "replace")):
        yield name, Line(speaker, text, english)


def _is_speech(line: Line) -> bool:
    foreign = any(
        not unicodedata.name(letter, "LATIN").startswith("LATIN") for letter in line.text if letter.isalpha()
    )
    return worded(fluent(line.text)) and "%" not in line.text and not foreign


def _files(lang: str, sources: Sequence[Path]) -> Iterator[tuple[PurePosixPath, bytes]]:
    wanted = re.compile(rf"(^|/)(script/[^/]+/\w*dialogs_{lang}\.lua|sound/.+/{lang}/[^/]+\.ogg)$").search
    packages = ["fillets-ng-data", f"fillets-ng-data-{lang}"]
    manual = f"pass {' and '.join(f'{package}_*.deb' for package in packages)} as --source"
    installed = [INSTALLED] if any(INSTALLED.glob(f"sound/*/{lang}")) else []
    yield from debian.contents(
        packages,
        lambda path: bool(wanted(path)),
        sources=sources,
        installed=installed,
        corpus="fillets",
        manual=manual,
    )


def _after(path: PurePosixPath, folder: str) -> int:
    """The place in a path behind the last folder of that name that leads to a level."""
    return max(at for at, part in enumerate(path.parts) if part == folder) + 1
