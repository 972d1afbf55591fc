"""Every format says what the result says, and other programs read it back."""

import json

import pysubs2
import pytest

from speech_peft.errors import ConfigError
from speech_peft.folders.formats import formats
from speech_peft.transcribe.result import Result, Segment, Word
from speech_peft.transcribe.writers import WRITERS, render

WORDS = (Word(" Hello", 0.5, 0.9, 0.99), Word(" there.", 0.9, 1.75, 0.98))
RESULT = Result(
    path="a.wav",
    text="Hello there. 1 < 2 --> fine",
    segments=(
        Segment(0, 0.5, 1.75, "Hello there.", WORDS, -0.1, 0.01, 0.9),
        Segment(1, 3601.0, 3602.25, "1 < 2 --> {fine}\tok", (), -1.5, 0.7, 3.0, ("loop", "unsure")),
    ),
    duration=3603.0,
    seconds=2.0,
    about={"model": "m", "settings_hash": "h"},
)


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_come_back_from_pysubs2(format):
    read = pysubs2.SSAFile.from_string(render(RESULT, format), format_=format)
    assert [(event.start, event.end) for event in read] == [(500, 1750), (3601000, 3602250)]
    assert read[0].plaintext == "Hello there."
    assert "fine" in read[1].plaintext


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv", "txt"])
def test_whatever_a_text_holds_it_stays_one_cue_or_line(format):
    text = "a\n\n2\nx --> 00:00:10,000\n<script>x & y</script>\u2028{\\an8}C:\\New\x1b[2J\tz\r\n"
    written = render(
        Result("a.wav", segments=(Segment(0, 0.0, 1.0, text), Segment(1, 1.0, 2.0, "b"))), format
    )
    assert "\x1b" not in written
    if format in ("txt", "tsv"):
        rows = written.split("\n")
        assert len(rows) == (3 if format == "txt" else 4)
        assert rows[-3].count("\t") == (2 if format == "tsv" else 0)
    else:
        read = pysubs2.SSAFile.from_string(written, format_=format)
        assert [(event.start, event.end) for event in read] == [(0, 1000), (1000, 2000)]
        assert "<script" not in written
        assert "New" in read[0].plaintext


def test_vtt_escapes_what_it_reads_as_tags():
    written = render(Result("a.wav", segments=(Segment(0, 0.0, 1.0, "R&D <b>x</b> 1 < 2"),)), "vtt")
    assert "R&amp;D &lt;b&gt;x&lt;/b&gt; 1 &lt; 2" in written


def test_json_has_whispers_fields_and_ours():
    read = json.loads(render(RESULT, "json"))
    assert {
        "text",
        "language",
        "segments",
        "schema",
        "duration",
        "rtfx",
        "model",
        "settings_hash",
    } <= read.keys()
    assert read["segments"][0]["words"][1] == {
        "word": " there.",
        "start": 0.9,
        "end": 1.75,
        "probability": 0.98,
    }
    assert read["segments"][1]["flags"] == ["loop", "unsure"]


def test_jsonl_and_tsv_have_a_line_a_segment():
    assert [json.loads(line)["id"] for line in render(RESULT, "jsonl").splitlines()] == [0, 1]
    header, *rows = render(RESULT, "tsv").splitlines()
    assert header.split("\t") == ["start", "end", "text"]
    assert rows[0].split("\t") == ["500", "1750", "Hello there."]
    assert all(len(row.split("\t")) == 3 for row in rows)


@pytest.mark.parametrize("format", sorted(WRITERS))
def test_silence_is_a_file_without_text(format):
    assert "Hello" not in render(Result("a.wav", duration=60.0), format)


def test_formats_are_asked_for_in_any_spelling():
    assert formats(["TXT,srt", "txt"], WRITERS) == ("txt", "srt")
    assert formats(["all"], WRITERS) == tuple(WRITERS)
    with pytest.raises(ConfigError, match="'srt'"):
        formats(["str"], WRITERS)


def test_json_tells_what_a_listener_should_know():
    told = Result("a.mkv", notes=("has 2 audio tracks; track 2 was read (marked as default)",))
    assert json.loads(render(told, "json"))["notes"] == list(told.notes)
