"""Beneath a Steel Sky: 1.9 hours of acted English, 11 kHz, with the words that are said.

An adventure game of 1994, free to share, in Debian as `beneath-a-steel-sky`. `sky.dnr` is a table of numbered
files in `sky.dsk`, most of them packed (`propack.py`). Eight of them hold texts, by a Huffman code that only
the game's program knew; the clip that speaks a text (8 bits, 11,025 Hz) has a number that follows from the
text's. Nobody says who speaks, so there is one part, for whoever wants voices that nothing else here has.

Words that the actors stress stand in capitals there: they get the letters that the game gives them elsewhere.
Clips without words, and those whose text cannot be theirs, are left out.
"""

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath

import numpy as np

from ...audio import io
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from ..propack import unpacked
from . import debian
from .base import Prepared, Progress, plausible, reuse, silent, worded, write_parts

PACKAGE = "beneath-a-steel-sky"
INSTALLED = Path("/usr/share/scummvm") / PACKAGE
RATE = 11_025
_CORPUS = "steel-sky/1"
_TABLE, _FILES = "sky.dnr", "sky.dsk"
_HEADER = 22  # bytes before the content of a file
_TEXTS, _CLIPS = 60_600, 50_000  # numbers of the first file of each kind
_SECTIONS = tuple(accumulate((0, 600, 500, 1330, 950, 1150, 550, 150)))
"""The first clip of each file of texts."""
_CODE = (
    "||| |ea|||os|tn||.ir|||||\0Eu|mA|||lI|dR||NST|||||Ohc|Dg|||LC|pU||!yM|||||PvH|?b|"
    "||'f,|GB|||||VkF|qw|||K-W|J*||||zY|j+|||Q~)||Z~<|||||~~~|~:|||~]#||xX~|||||~`2||"
    '0~1|||/(=|~^||||39|~4|||}8\\|"~||||&~|56||~~|~~||||~7~||~~|$@||||[~_|>~|||~%\t||~~|{|~!'
)
"""The Huffman code: `|`, what a 0 goes on to, what a 1 goes on to. `~` is any other character."""


@CORPORA.register("steel-sky")
def prepare(out: str | Path, *, sources: Sequence[str | Path] = (), progress: Progress = silent) -> Prepared:
    """Write `OUT/audio/*.flac` and `OUT/all.jsonl`; a complete earlier result is reused.

    Without `sources` (a .deb, or a folder with `sky.dnr` and `sky.dsk`) the installed game is used; where
    there is none `apt-get download` fetches the package (63 MB) into a temporary folder, and nothing is
    installed.
    """
    out = Path(out)
    stamp = {"corpus": _CORPUS, "sources": [str(source) for source in sources]}
    if earlier := reuse(out, stamp):
        return earlier
    game = _game([Path(source) for source in sources])
    lines, rows = spoken(game), []
    for done, (number, text) in enumerate(sorted(lines.items()), 1):
        audio = out / "audio" / f"{number:05d}.flac"
        samples = (np.frombuffer(game.read(number), np.uint8).astype(np.float32) - 128) / 128
        if plausible(text, seconds := len(samples) / RATE):
            io.save(audio, samples, RATE)
            rows.append(Row(audio.stem, audio, duration=seconds, text=text, lang="en"))
        progress(done, len(lines))
    return write_parts(out, {"all": rows}, stamp)


def spoken(game: "Game") -> dict[int, str]:
    """Clip -> the words that are said in it, for all clips that have words."""
    said = {}
    for section, first in enumerate(_SECTIONS):
        for at, text in enumerate(_texts(game.read(_TEXTS + section, header=True))):
            if (number := _CLIPS + first + at) in game:
                said[number] = text
    cased = unstressed(said.values())
    return {
        number: text for number, text in zip(said, cased, strict=True) if worded(text) and "~" not in text
    }


def unstressed(texts: Iterable[str]) -> list[str]:
    """The texts, each word in capitals as it most often stands elsewhere, or in small letters.

    >>> unstressed(["Ask JOEY about the LINC!", "WHERE is Joey?"])
    ['Ask Joey about the linc!', 'Where is Joey?']
    """
    texts = [" ".join(text.replace("`", "'").split()) for text in texts]
    words = Counter(word for text in texts for word in re.findall(r"(?<=[^.!?] )[A-Za-z']+", text))
    usual: dict[str, str] = {}
    for word, _ in words.most_common():
        if not _stressed(word):
            usual.setdefault(word.lower(), word)

    def written(match: re.Match[str]) -> str:
        word = match[0]
        return usual.get(word.lower(), word.lower()) if _stressed(word) else word

    def begun(text: str) -> str:
        return re.sub(r"(^|[.!?] )([a-z])", lambda start: start[1] + start[2].upper(), text)

    return [begun(re.sub(r"[A-Za-z']+", written, text)) for text in texts]


def _stressed(word: str) -> bool:
    return word.isupper() and word not in ("I", "A")


# ---------------------------------------------------------------- the game's files


@dataclass(frozen=True)
class _Entry:
    offset: int
    size: int
    plain: bool
    whole: bool
    """Whether what is packed begins with the header."""


class Game:
    """The files of the game by number."""

    def __init__(self, table: bytes, files: bytes):
        """Raises ConfigError where the table is damaged."""
        self._files = files
        try:
            (count,) = struct.unpack_from("<I", table)
            entries = [struct.unpack_from("<H3s3s", table, 4 + 8 * at) for at in range(count)]
        except struct.error as error:
            raise ConfigError(f"{_TABLE}: its table is cut off ({error})") from error
        self._entries = {number: _entry(offset, size) for number, offset, size in entries}

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def read(self, number: int, header: bool = False) -> bytes:
        """A file, unpacked. Raises ConfigError for one that is not there or damaged."""
        try:
            entry = self._entries[number]
            stored = self._files[entry.offset : entry.offset + entry.size]
            if entry.plain or not stored[0] & 0x80:
                whole = stored
            else:
                content = unpacked(stored[_HEADER:])
                whole = content if entry.whole else stored[:_HEADER] + content
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(f"{_FILES}: file {number} cannot be read ({error})") from error
        return whole if header else whole[_HEADER:]


def _entry(offset: bytes, size: bytes) -> _Entry:
    """The highest bit of an offset makes it count in 16 bytes; those of a size say how the file is packed."""
    at, told = int.from_bytes(offset, "little"), int.from_bytes(size, "little")
    start = (at & 0x7FFFFF) << (4 if at >> 23 else 0)
    return _Entry(start, told & 0x3FFFFF, plain=bool(told >> 23), whole=bool(told >> 22 & 1))


def _game(sources: Sequence[Path]) -> Game:
    names = (_TABLE, _FILES)
    manual = f"pass {PACKAGE}_*.deb or the folder of {_TABLE} and {_FILES} as --source"
    files = debian.contents(
        [PACKAGE],
        lambda path: PurePosixPath(path).name in names,
        sources=sources,
        installed=[INSTALLED] if INSTALLED.exists() else [],
        corpus="steel-sky",
        manual=manual,
    )
    found = {path.name: content for path, content in files}
    if missing := [name for name in names if name not in found]:
        raise ConfigError(f"{', '.join(map(str, sources))}: no {' and no '.join(missing)} there; {manual}")
    return Game(found[_TABLE], found[_FILES])


def _texts(section: bytes) -> Iterator[str]:
    """The texts of a section, in order.

    It begins with where their sizes stand, where they stand themselves, and the sizes of blocks of 32 texts,
    all in quarters of a byte; 0x80 in the size of a text means that the rest of it counts eightfold.
    """
    sizes, start = struct.unpack_from("<HH", section)
    blocks = struct.unpack_from(f"<{(sizes - 4) // 2}H", section, 4)
    bits, code = np.unpackbits(np.frombuffer(section, np.uint8)).tobytes(), _code(iter(_CODE))
    for block, at in enumerate(accumulate((0, *blocks))):
        for size in section[sizes:start][32 * block :][:32]:
            yield "".join(_letters(bits, 8 * start + 2 * at, code))
            at += (size & 0x7F) << 3 if size & 0x80 else size


_Code = str | tuple["_Code", "_Code"]


def _code(written: Iterator[str]) -> _Code:
    letter = next(written)
    return (_code(written), _code(written)) if letter == "|" else letter


def _letters(bits: bytes, at: int, code: _Code) -> Iterator[str]:
    """Those that begin at a bit, up to the zero behind the last."""
    here = code
    for bit in memoryview(bits)[at:]:
        here = here[bit]
        if isinstance(here, str):
            if here == "\0":
                return
            yield here
            here = code
