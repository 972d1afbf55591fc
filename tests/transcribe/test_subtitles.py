"""Subtitles keep to a width and a number of lines, lose no word, and mark the one that is said."""

import re
from itertools import pairwise

import pysubs2
import pytest

from speech_peft.errors import ConfigError
from speech_peft.transcribe.result import Result, Segment, Word
from speech_peft.transcribe.subtitles import Shape, cues
from speech_peft.transcribe.writers import render

TEXT = "The call was answered by Asterisk and then it rang for a long while, extraordinarily long"
WORDS = tuple(Word(f" {word}", 2.0 + i, 2.5 + i, 0.9) for i, word in enumerate(TEXT.split()))
TIMED = Result("a.wav", segments=(Segment(0, 2.0, 2.0 + len(WORDS), TEXT, WORDS), Segment(1, 40, 41, "End.")))
UNTIMED = Result("a.wav", segments=(Segment(0, 2.0, 20.0, TEXT),))


def plain(text: str) -> str:
    return text


@pytest.mark.parametrize("result", [TIMED, UNTIMED])
@pytest.mark.parametrize("width", [5, 12, 30, 1000])
@pytest.mark.parametrize("count", [None, 1, 2])
def test_lines_are_as_wide_and_cues_as_long_as_asked_and_no_word_is_lost(result, width, count):
    found = list(cues(result, Shape(width, count), plain))
    for cue in found:
        lines = cue.text.split("\n")
        assert len(lines) <= (count or 1000)
        assert all(len(line.strip()) <= width or " " not in line.strip() for line in lines)
    said = " ".join(" ".join(cue.text for cue in found).split())
    assert said == " ".join(segment.text for segment in result.segments)
    assert all(cue.start < cue.end for cue in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert (found[0].start, found[-1].end) == (result.segments[0].start, result.segments[-1].end)


def test_cues_that_were_split_have_the_times_of_their_words():
    found = list(cues(TIMED, Shape(12, 1), plain))
    assert found[1].text.split()[0] == WORDS[3].word.strip()
    assert found[1].start == WORDS[3].start


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_every_word_is_underlined_once_while_it_is_said(format):
    read = pysubs2.SSAFile.from_string(render(TIMED, format, Shape(highlight_words=True)), format_=format)
    written = render(TIMED, format, Shape(highlight_words=True))
    assert re.findall(r"<u>(.*?)</u>", written) == [*TEXT.split(), "End."]
    assert [event.start for event in read][:3] == [2000, 3000, 4000]


def test_what_words_hold_is_escaped_beside_the_mark():
    words = (Word(" <b>", 0.0, 1.0, 1.0), Word(" --", 1.0, 2.0, 1.0), Word(">", 2.0, 3.0, 1.0))
    result = Result("a.wav", segments=(Segment(0, 0.0, 3.0, "<b> -->", words),))
    for format in ("srt", "vtt"):
        written = render(result, format, Shape(highlight_words=True))
        assert "<b>" not in written
        assert len(pysubs2.SSAFile.from_string(written, format_=format)) == 3


def test_lines_are_only_counted_where_they_end():
    with pytest.raises(ConfigError, match="--max-line-width"):
        Shape(max_line_count=2)
