"""Subtitles as players show them: lines of a width, cues of so many lines, the word being said underlined."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ..errors import ConfigError
from .result import Result, Segment, Word


@dataclass(frozen=True)
class Shape:
    """What cues look like; by default a segment is a cue of one line."""

    max_line_width: int | None = None
    """Characters; a word that is longer has a line of its own."""
    max_line_count: int | None = None
    """Lines of a cue; what is longer becomes several cues, each at the times of its words."""
    highlight_words: bool = False
    """A cue for each word, with this word underlined."""

    def __post_init__(self):
        if self.max_line_count is not None and self.max_line_width is None:
            raise ConfigError("--max-line-count needs --max-line-width, as lines have no end without it")

    @property
    def timed(self) -> bool:
        """Whether it asks when each word was said."""
        return self.highlight_words or self.max_line_count is not None


PLAIN = Shape()


class Cue(NamedTuple):
    """Seconds, and a text that is escaped for its format."""

    start: float
    end: float
    text: str


def cues(result: Result, shape: Shape, escape: Callable[[str], str]) -> Iterator[Cue]:
    """The cues of a recording in order."""
    for segment in result.segments:
        if shape == PLAIN:
            yield Cue(segment.start, segment.end, escape(segment.text))
            continue
        lines = list(_lines(_words(segment), shape.max_line_width))
        most = shape.max_line_count or max(1, len(lines))
        groups = [lines[at : at + most] for at in range(0, len(lines), most)]
        ends = [_start(after) for _, after in pairwise(groups)] + [segment.end]
        for place, (group, latest) in enumerate(zip(groups, ends, strict=True)):
            start = _start(group) if place else segment.start
            end = segment.end if place == len(groups) - 1 else min(group[-1][-1].end, latest)
            if shape.highlight_words:
                yield from _highlighted(group, start, end, escape)
            else:
                yield Cue(start, end, "\n".join(escape("".join(w.word for w in line)) for line in group))


_Line = list[Word]


def _start(group: Sequence[_Line]) -> float:
    return group[0][0].start


def _lines(words: Sequence[Word], width: int | None) -> Iterator[_Line]:
    """Words in lines; one that is wider than a line has its own."""
    line: _Line = []
    for word in words:
        if line and width is not None and len("".join(w.word for w in (*line, word)).strip()) > width:
            yield line
            line = []
        line.append(word)
    if line:
        yield line


def _words(segment: Segment) -> Sequence[Word]:
    """The words with their times; where none are known, shared out by their letters."""
    if segment.words:
        return segment.words
    texts = segment.text.split()
    letters, at = sum(map(len, texts)) or 1, 0
    found = []
    for text in texts:
        start, at = at, at + len(text)
        begin, end = (
            segment.start + (segment.end - segment.start) * share / letters for share in (start, at)
        )
        found.append(Word(f" {text}", begin, end, 0.0))
    return found


def _highlighted(
    group: Sequence[_Line], start: float, end: float, escape: Callable[[str], str]
) -> Iterator[Cue]:
    """A cue from the start of each word to that of the next, the whole text in each."""
    words = [word for line in group for word in line]
    starts = [start, *(word.start for word in words[1:]), end]
    for said, (begin, stop) in zip(words, pairwise(starts), strict=True):
        if stop > begin:
            lines = ("".join(_marked(w, w is said, escape) for w in line).strip() for line in group)
            yield Cue(begin, stop, "\n".join(lines))


def _marked(word: Word, said: bool, escape: Callable[[str], str]) -> str:
    bare = escape(word.word)
    space = " " if word.word[:1].isspace() else ""
    return f"{space}<u>{bare}</u>" if said and bare else f"{space}{bare}"
