"""A text as a corpus in synthetic voices: who says what, and how voices are made of voices."""

import shlex
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.errors import ConfigError
from speech_peft.prepare import __main__ as command
from speech_peft.prepare.corpora import speak
from speech_peft.prepare.engines import base, hibari, kokoro
from speech_peft.prepare.lexicon import CARRIERS, Phrase, carried, read_phrases, sentences

RATE = 24_000


@dataclass(frozen=True)
class Tone:
    """A voice that hums as long as it would take to read; silent on what it cannot read."""

    name: str
    heard: list
    sample_rate: int = RATE

    def say(self, text):
        self.heard.append((self.name, text))
        seconds = 0.0 if "unspeakable" in text else 0.1 * len(text)
        return np.sin(np.arange(round(RATE * seconds)) / 30).astype(np.float32)


@pytest.fixture
def heard(monkeypatch):
    """Two voices, and what they were given to say."""
    said = []
    monkeypatch.setattr(speak, "open_voices", lambda engine, settings: [Tone("a", said), Tone("b", said)])
    return said


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("One sentence. Another one!\nunspeakable\n\nThe last line", "utf-8")
    return tmp_path / "text.txt"


def test_every_sentence_is_spoken_by_voices_that_take_turns(heard, text, tmp_path):
    out = tmp_path / "out"
    prepared = speak.prepare(out, speak.Script(text, times=2))
    rows = manifest.read(prepared.parts["all"].path)
    assert [row.text for row in rows] == ["One sentence.", "Another one!", "The last line"] * 2
    assert {row.speaker for row in rows} == {"a", "b"}
    assert len(heard) == 8
    assert {name for name, _ in heard[:2]} == {"a", "b"}
    assert [round(io.info(row.audio).seconds, 3) for row in rows] == [
        round(row.duration or 0, 3) for row in rows
    ]
    assert speak.prepare(out, speak.Script(text, times=2)).reused
    assert not speak.prepare(out, speak.Script(text, times=1)).reused


def test_phrases_of_a_lexicon_are_written_as_listed_and_spoken_as_told(heard, tmp_path):
    (tmp_path / "words.txt").write_text(
        "Floda = Flow-da | Floo-da # a firm\nlederhosen, pound key\n", "utf-8"
    )
    script = speak.Script(lexicon=tmp_path / "words.txt", each=12)
    rows = manifest.read(speak.prepare(tmp_path / "out", script).parts["all"].path)
    assert {tuple(row.extra["lexicon"])[:1] for row in rows} >= {("Floda",), ("lederhosen",), ("pound key",)}
    assert all(phrase.casefold() in row.text.casefold() for row in rows for phrase in row.extra["lexicon"])
    spoken = " ".join(sentence for _, sentence in heard)
    assert "Floda" not in spoken
    assert "Flow-da" in spoken
    assert "Floo-da" in spoken


def test_a_phrase_is_carried_by_sentences_that_differ():
    said = list(carried([Phrase("Azura", ("Azura",)), Phrase("mists", ("mists",))], len(CARRIERS), seed=0))
    first = [one.text for one in said[: len(CARRIERS)]]
    assert len(set(first)) == len(CARRIERS)
    assert all("Azura" in sentence for sentence in first)


def test_words_are_read_in_every_form_a_list_has(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("# mine\nAsterisk\n  voice   mail , Digium\n\nAsterisk\n")
    assert [phrase.text for phrase in read_phrases(words)] == ["Asterisk", "voice mail", "Digium"]
    words.write_text("# nothing\n,,\n")
    with pytest.raises(ConfigError, match="holds no word"):
        read_phrases(words)


def test_long_sentences_are_cut_and_nothing_is_lost():
    text = "A short one. " + "word, " * 40 + "x" * 90
    parts = sentences(text, longest=60)
    assert max(map(len, parts)) <= 60
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_no_text_and_no_lexicon_is_refused_and_so_is_silence(heard, text, tmp_path, capsys):
    assert command.main(["speak", "-o", str(tmp_path / "out")]) == 2
    assert "give a text, a lexicon or both" in capsys.readouterr().err
    text.write_text("unspeakable")
    assert command.main(["speak", str(text), "-o", str(tmp_path / "out")]) == 2
    assert "could say none of 1 sentences" in capsys.readouterr().err
    assert command.main(["speak", str(text), "--engine", "command", "--command", "say {text}"]) == 2


# ---------------------------------------------------------------- engines

SAY = """
import sys, wave
file = wave.open(sys.argv[1], "wb"); file.setnchannels(1); file.setsampwidth(2); file.setframerate(16000)
file.writeframes(bytes([1, 2]) * 1600 * len(sys.argv[2] or sys.stdin.read()))
sys.exit(sys.argv[2] == "fail")
"""


def test_any_command_speaks_and_its_voices_are_played_at_other_rates(tmp_path):
    script = tmp_path / "say.py"
    script.write_text(SAY)
    line = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(script))} {{wav}} "
    told, asked = (
        base.open_voices("command", base.Settings(2, command=line + end)) for end in ("{text}", "''")
    )
    assert len(told[0].say("{wav} ok")) == 1600 * 8
    assert len(asked[0].say("four")) == 1600 * 4
    factor = float(told[1].name.rpartition("formants")[2])
    assert len(told[1].say("0123456789")) == pytest.approx(16_000 / factor, abs=2)
    with pytest.raises(ConfigError, match="exit code 1"):
        told[0].say("fail")


def test_a_command_is_told_which_voice_and_named_after_it():
    settings = base.Settings(3, names=("x", "y"), command="say -v {voice} {wav}")
    assert [voice.name.partition("~")[0] for voice in base.open_voices("command", settings)] == [
        "x",
        "y",
        "x",
    ]
    with pytest.raises(ConfigError, match="no \\{voice\\}"):
        base.open_voices("command", base.Settings(3, names=("x", "y"), command="say {wav}"))


def test_one_voice_becomes_many_by_pitch_and_formants(monkeypatch):
    """The network's spectra are stretched and its pitch is moved; the first voice is left as it is."""
    bins, frames, given = 601, 4, []
    peak = np.zeros((bins, frames), np.float32)
    peak[200] = 1.0
    package, dsp = ModuleType("hibari"), ModuleType("hibari.dsp")

    class Model:
        sample_rate = RATE

        def __init__(self, voice):
            self.sess = self

        def phonemize(self, text):
            return [text] if text else []

        def ids(self, phonemes):
            return [0, *range(len(phonemes)), 0]

        def run(self, _, fed):
            return [peak[None]] * 5 + [np.full((1, frames), 100.0, np.float32)]

    def synth(*made):
        given.append((int(made[0][:, 0].argmax()), float(made[5][0])))
        return np.ones(240, np.float32)

    package.Hibari, package.dsp, dsp.synth = Model, dsp, synth
    monkeypatch.setitem(sys.modules, "hibari", package)
    monkeypatch.setitem(sys.modules, "hibari.dsp", dsp)
    voices = hibari.voices(base.Settings(20))
    assert len({voice.name for voice in voices}) == 20
    assert [len(voice.say("abc")) for voice in voices] == [240] * 20
    assert voices[0].say("").shape == (0,)
    manners = base.manners(20, 0, free=True)
    assert given[0] == (200, 100.0)
    for (place, pitch), manner in zip(given, manners, strict=True):
        assert place == pytest.approx(200 * manner.formants, abs=1)
        assert pitch == pytest.approx(100 * manner.pitch)


def test_more_voices_than_a_folder_has_are_blends_of_them(tmp_path):
    for place, name in enumerate(("af_a", "bm_b", "jf_c")):
        np.full((510, 256), place, np.float32).tofile(tmp_path / f"{name}.bin")
    styles = kokoro.in_folder(tmp_path)
    assert list(styles) == ["af_a", "bm_b"]  # English ones where there are any
    found = kokoro.blended(styles, 4, seed=0)
    assert [name for name, _, _ in found[:2]] == ["af_a", "bm_b"]
    assert len({name for name, _, _ in found}) == 4
    for name, style, _ in found[2:]:
        share = float(name.partition("bm_b")[2][:4])
        np.testing.assert_allclose(style, share, atol=0.006)
    (tmp_path / "af_a.bin").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"af_a\.bin is no voice"):
        kokoro.in_folder(tmp_path)


def test_an_engine_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari", None)
    for engine in ("hibari", "kokoro"):
        with pytest.raises(ConfigError, match="speech_peft\\[speak\\]"):
            base.open_voices(engine, base.Settings())
    with pytest.raises(ConfigError, match="Did you mean 'hibari'"):
        base.open_voices("hibarri", base.Settings())
