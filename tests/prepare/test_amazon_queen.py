"""The Amazon Queen corpus, on a replica of the game's file with a few entries of each kind."""

import io as stdio
import struct

import numpy as np
import pytest
import soundfile

from speech_peft.audio import manifest
from speech_peft.errors import ConfigError
from speech_peft.prepare.corpora import amazon_queen


def clip(seconds: float) -> bytes:
    sound = stdio.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, round(seconds * 11_025))
    soundfile.write(sound, noise, 11_025, format="MP3")
    return sound.getvalue()


def string(text: str, align: int) -> bytes:
    return (bytes([len(text)]) + text.encode("cp850")).ljust(-(-(1 + len(text)) // align) * align, b"\0")


def dialogue(key: int, theirs: dict[int, str], heros: dict[int, str], end: tuple[str, str]) -> bytes:
    """A `.DOG` without levels: JOE's lines at 32, then the other's, then what is said at the end."""
    ours, others = (
        b"".join(struct.pack(">Hh", 1, number) + aligned(text) for number, text in lines.items())
        for lines in (heros, theirs)
    )
    their_start = 32 + len(ours)
    last = their_start + len(others)
    head = struct.pack(">hhhhh", 0, 0, key, len(heros), len(theirs)).ljust(22, b"\0")
    head += struct.pack(">HHH", their_start, 0, last)
    body = head.ljust(32, b"\0") + ours + others
    for text in end:
        body += string(text, 2) if text else b"\0"
    return bytes(20) + body


def aligned(text: str) -> bytes:
    return string(text, 4)


def cut_scene(*sentences: str) -> bytes:
    head = struct.pack(">hhhhH", 0, len(sentences), 0, 0, 12).ljust(12, b"\0")
    return bytes(20) + head + string("A", 2) + b"".join(string(text, 2) for text in sentences)


def archive(entries: dict[str, bytes]) -> bytes:
    offset, table, content = 15 + 21 * len(entries), b"", b""
    for name, data in entries.items():
        table += struct.pack(">12sBII", name.encode(), 1, offset + len(content), len(data))
        content += data
    return b"QTBL1.00\0\0\0\0\0" + struct.pack(">H", len(entries)) + table + content


ENTRIES = {
    "FAYE2.DOG": dialogue(7, {5: "Hello Joe.*12Who are you?"}, {0x1A: "It is me."}, ("Bye.", "")),
    "BOB.DOG": dialogue(12, {1: "**"}, {}, ("", "")),
    "CQ01.CUT": cut_scene("Stop there!", "EXIT"),
    "QUEEN2.JAS": b"A door.\r\nA long remark that nobody says in so little time at all, ever, I would say.",
    "070005P1.SB": clip(1.0),
    "070005P2.SB": clip(1.0),
    "07001AJ1.SB": clip(1.0),
    "07XXXXP1.SB": clip(0.5),
    "120001P1.SB": clip(1.0),
    "CQ01_011.SB": clip(1.0),
    "JOE00411.SB": clip(0.7),
    "JOE00421.SB": clip(0.7),
}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "game" / "queen.1c"
    path.parent.mkdir()
    path.write_bytes(archive(ENTRIES))
    return path


def texts(path):
    return {row.id: (row.speaker, row.text) for row in manifest.read(path)}


def test_each_clip_has_its_words_and_its_speaker_and_test_speakers_are_apart(source, tmp_path):
    prepared = amazon_queen.prepare(tmp_path / "out", sources=[source.parent])
    assert texts(prepared.parts["test"].path) == {
        "070005p1": ("FAYE", "Hello Joe."),
        "070005p2": ("FAYE", "Who are you?"),
        "07xxxxp1": ("FAYE", "Bye."),
    }
    # The line without words and the one spoken at twenty words a second are left out.
    assert texts(prepared.parts["train"].path) == {
        "07001aj1": ("JOE", "It is me."),
        "joe00411": ("JOE", "A door."),
    }
    assert {file.stem for file in (tmp_path / "out" / "audio").iterdir()} == {
        "070005p1",
        "070005p2",
        "07xxxxp1",
        "07001aj1",
        "joe00411",
    }
    assert amazon_queen.prepare(tmp_path / "out", sources=[source.parent]).reused


def test_clips_of_unknown_speakers_come_on_request_and_are_never_for_the_test(source, tmp_path):
    prepared = amazon_queen.prepare(tmp_path / "out", sources=[source], unknown=True)
    assert texts(prepared.parts["train"].path)["cq01_011"] == ("?", "Stop there!")


def test_sounds_that_no_word_is_made_of_are_left_out_and_marks_of_the_game_go():
    said = ["(sigh)", "Mmmmft! Frbl", "Unga, whoop!", "@@ Super nincompoop^_ @@", "Hubba <hack> bubba."]
    clips = {f"JOE{number:04d}1.SB": b"" for number in range(41, 46)}
    lines = amazon_queen.read_lines({"QUEEN2.JAS": "\r\n".join(said).encode()} | clips)
    assert [line.text for line in lines.values()] == ["Super nincompoop", "Hubba bubba."]


@pytest.mark.parametrize(
    "content", [b"QTBL1.00\0\0\0\0\0\0\x09abc", b"RIFF", archive({"FAYE.DOG": ENTRIES["FAYE2.DOG"][:70]})]
)
def test_a_damaged_game_file_is_refused_by_name(content, tmp_path):
    (tmp_path / "queen.1c").write_bytes(content)
    with pytest.raises(ConfigError, match=r"queen\.1c"):
        amazon_queen.prepare(tmp_path / "out", sources=[tmp_path / "queen.1c"])
