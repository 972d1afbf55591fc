"""What a recording's text depends on: itself. Not the batch, not the others, not what is wrong with them."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import soundfile
import torch

from speech_peft.audio.manifest import Row
from speech_peft.audio.windows.chunks import Window
from speech_peft.backbones.families import tiny
from speech_peft.bench.runs import asr as benchmark
from speech_peft.core.model import AdaptedModel
from speech_peft.decoders.words import engine, whisper_text
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.decoders.words.word_times import TimedWord
from speech_peft.errors import SpeechPeftError
from speech_peft.folders import memory
from speech_peft.folders.reader import Piece
from speech_peft.opening.loading import Opened
from speech_peft.transcribe import transcriber
from speech_peft.transcribe.hearing import languages
from speech_peft.transcribe.hearing.languages import Spoken, telling_first
from speech_peft.transcribe.hearing.texts import Texts
from speech_peft.transcribe.transcriber import Transcriber

RATE = 16_000
CODES = {"en": 5, "de": 6, "fr": 7}


@pytest.fixture
def opened(monkeypatch) -> Opened:
    """A random tiny model behind every address; what it decodes is how many seconds its clip has."""
    backbone = tiny("whisper", context="fit")
    opened = Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}))
    monkeypatch.setattr(transcriber, "load", lambda *_, **__: opened)

    def decode(backbone, states, mask, *, seconds, language, **_):
        return [Decoded(f"{code} {int(s)}", (), 0.0, 0.0) for s, code in zip(seconds, language, strict=True)]

    monkeypatch.setattr(whisper_text, "decode", decode)
    return opened


def sentences(*seconds: float, level: float = 0.2) -> np.ndarray:
    """Noise for so long each, with three seconds of silence behind it."""
    rng = np.random.default_rng(0)
    parts = [
        np.pad(level * rng.uniform(-1, 1, round(s * RATE)), (0, 3 * RATE)).astype(np.float32) for s in seconds
    ]
    return np.concatenate(parts)


def texts(inputs, **options) -> list[str]:
    return [result.text for result in Transcriber(vad="energy", **options).transcribe(inputs)]


@pytest.mark.parametrize("error", [KeyError, AssertionError, SpeechPeftError, ZeroDivisionError, MemoryError])
def test_a_window_that_cannot_be_heard_is_the_row_of_its_file_and_the_batch_is_heard_without_it(
    opened, monkeypatch, error
):
    features = Transcriber._features

    def fails(self, batch, pad_to=0):
        if any(np.abs(piece.window.samples).max() > 0.5 for piece in batch):
            raise error("too loud")
        return features(self, batch, pad_to)

    monkeypatch.setattr(Transcriber, "_features", fails)
    inputs = [sentences(2, 1), sentences(2, level=0.9), sentences(2), sentences(2)]
    good, bad, *others = Transcriber(vad="energy").transcribe(inputs)
    assert good.text == "None 2 None 1"
    assert [other.text for other in others] == ["None 2"] * 2
    assert bad.error.endswith("too loud" if error is not KeyError else "'too loud'")
    assert bad.error.startswith("too loud") == (error is SpeechPeftError)
    assert bad.stage == "transcribe"


@pytest.mark.parametrize("where", ["_cut", "_result"])
def test_what_is_raised_before_and_after_the_model_is_the_row_of_its_file_too(opened, monkeypatch, where):
    calls: list[object] = []
    method = getattr(Transcriber, where)

    def fails(self, argument):
        calls.append(argument)
        if len(calls) == 2:
            raise LookupError("nobody expected this")
        return method(self, argument)

    monkeypatch.setattr(Transcriber, where, fails)
    first, second, third = Transcriber(vad="energy").transcribe([sentences(2)] * 3)
    assert first.text == third.text == "None 2"
    assert "nobody expected this" in second.error


def test_a_benchmark_keeps_the_rows_beside_one_that_fails(opened, monkeypatch, tmp_path):
    rows = []
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", sentences(1 + i), RATE)
        rows.append(Row(id=str(i), audio=tmp_path / f"{i}.wav", text="one"))
    monkeypatch.setattr(benchmark, "open_transcriber", lambda *_: Transcriber(vad="energy"))
    read = Texts.decode

    def fails(self, pool, states, mask):
        if any(1.5 < piece.window.seconds < 2.6 for piece in pool):
            raise AssertionError("this length")
        return read(self, pool, states, mask)

    monkeypatch.setattr(Texts, "decode", fails)
    run = benchmark.measure(benchmark.System("base"), rows, benchmark.Settings())
    assert [bool(row.error) for row in run.predictions] == [False, True, False]


def test_windows_end_at_shorter_pauses_where_the_encoder_hears_no_more_than_they_hold(opened):
    pause = np.zeros(round(1.2 * RATE), np.float32)
    recording = np.concatenate([sentences(2)[: 2 * RATE], pause, sentences(2)])
    reader = Transcriber(vad="energy")
    assert len(list(reader._cut([recording]))) == 2
    reader.context = "full"
    assert len(list(reader._cut([recording]))) == 1


def packing(opened) -> Transcriber:
    opened.backbone.context = "full"
    return Transcriber(vad="energy")


def test_at_full_context_windows_are_filled_up_over_pauses_and_a_translations_are_not(opened):
    recording = sentences(6, 7, 8, 9)
    whole, rest = packing(opened)._cut([recording])
    assert [round(start) for _, start in whole.joints] == [9, 19]
    assert not rest.joints
    reader = packing(opened)
    reader.options = dataclasses.replace(reader.options, task="translate")
    assert not any(window.joints for window in reader._cut([recording]))


def test_words_of_a_packed_window_are_segments_where_they_were_said(opened, monkeypatch):
    """Each stretch is heard as one word; the pauses between are left out of the window alone."""

    def hear(self, pool):
        for piece in pool:
            edges = [0, *(sample for sample, _ in piece.window.joints), len(piece.window.samples)]
            words = [
                TimedWord(f" word{i}", first / RATE, last / RATE, 1.0)
                for i, (first, last) in enumerate(itertools.pairwise(edges))
            ]
            piece.file.hear(piece.window, Decoded("all", (), 0.0, 0.0), words)

    monkeypatch.setattr(Transcriber, "_hear", hear)
    (result,) = packing(opened).transcribe(sentences(1, 2, 3))
    assert [segment.text for segment in result.segments] == ["word0", "word1", "word2"]
    spans = [time for segment in result.segments for time in (segment.start, segment.end)]
    assert spans == pytest.approx([0, 1, 4, 6, 9, 12], abs=0.3)


def test_a_batch_without_memory_is_halved_and_grows_again(opened, monkeypatch):
    sizes: list[float] = []

    def hear(self, pool):
        sizes.append(self._seconds(pool))
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for piece in pool:
            piece.file.hear(piece.window, Decoded("x", (), 0.0, 0.0), ())

    monkeypatch.setattr(Transcriber, "_hear", hear)
    reader = Transcriber(vad="energy", batch_seconds=20)
    assert {result.text for result in reader.transcribe([sentences(2)] * 150)} == {"x"}
    assert sizes[0] >= 20
    assert max(sizes[1:4]) < 15
    assert sizes[-2] >= 20
    assert reader.notes == [f"out of memory: batches are now {sizes[1]:g} s of audio"]


def test_a_bug_that_speaks_of_memory_is_no_lack_of_it():
    assert memory.lacks_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not memory.lacks_memory(ValueError("b t d: the memory has 3 frames"))
    assert not memory.lacks_memory(RuntimeError("expected memory of width 32"))


def test_speech_that_a_reading_leaves_out_is_read_in_parts_of_its_own_recording_alone(opened, monkeypatch):
    """The decoder writes one number a window, how long it is; of two sentences it hears the first."""
    read: list[int] = []

    def decode(backbone, states, mask, *, seconds, **_):
        read.extend(round(s) for s in seconds)
        return [Decoded(f"{s:.0f}", (1,), -0.1, 0.0) for s in seconds]

    def align(*_, seconds, **__):
        return [(TimedWord(f" {s:.0f}", 0.0, 1.0, 1.0),) for s in seconds]

    monkeypatch.setattr(whisper_text, "decode", decode)
    monkeypatch.setattr(engine.word_times, "align", align)
    one = sentences(1)[: 2 * RATE]
    monkeypatch.setattr(transcriber, "_FIT_GAP", 2.0)  # both in one window
    two, alone = Transcriber(vad="energy").transcribe([np.concatenate([one, sentences(1)]), sentences(1)])
    assert [(segment.text, segment.flags) for segment in two.segments] == [("2", ()), ("2", ("unheard",))]
    np.testing.assert_allclose([(s.start, s.end) for s in two.segments], [(0.0, 1.0), (2.0, 3.0)], atol=0.05)
    assert [segment.flags for segment in alone.segments] == [()]
    assert sorted(read) == [1, 2, 2, 3]
    read.clear()
    translator = Transcriber(vad="energy")
    translator.options = dataclasses.replace(translator.options, task="translate")
    list(translator.transcribe([np.concatenate([one, sentences(1)])]))
    assert read == [3]  # the words of a translation have no times of their own


@pytest.fixture
def multilingual(opened, monkeypatch) -> Opened:
    """The model takes clips of 2 to 4 s for German, longer ones for French, and shorter ones for English."""
    generation = dataclasses.replace(opened.backbone.generation, languages=CODES, tasks={"transcribe": 8})
    monkeypatch.setattr(opened.backbone, "generation", generation)

    def detect(backbone, states, mask=None):
        code = "en" if states.shape[1] < 100 else "de" if states.shape[1] <= 200 else "fr"
        return [{one: float(one == code) for one in CODES}] * len(states)

    monkeypatch.setattr(whisper_text, "detect_language", detect)
    return opened


def test_the_language_is_that_of_the_files_own_longest_window_whatever_is_pooled_with_it(multilingual):
    recordings = [sentences(0.5, 0.5, 5, 2, 0.5), sentences(0.6, 0.6, 2.5), sentences(0.7)]
    codes = ["fr", "de", "en"]
    alone = [texts(one)[0] for one in recordings]
    assert [set(re.findall("[a-z]+", text)) for text in alone] == [{code} for code in codes]
    assert alone[0].split()[1::2] == ["0", "1", "5", "2", "1"]
    for batch_seconds in (1.0, 6.0, 600.0):
        assert texts(recordings, batch_seconds=batch_seconds) == alone
        assert texts(recordings[::-1], batch_seconds=batch_seconds) == alone[::-1]


def test_a_language_that_was_given_is_not_asked_for(multilingual):
    assert texts([sentences(0.5, 5)], language="de") == ["de 0 de 5"]


def test_the_language_is_known_even_where_a_batch_fails_before(multilingual, monkeypatch):
    features = Transcriber._features

    def fails(self, batch, pad_to=0):
        if any(np.abs(piece.window.samples).max() > 0.5 for piece in batch):
            raise RuntimeError("too loud")
        return features(self, batch, pad_to)

    monkeypatch.setattr(Transcriber, "_features", fails)
    good, _ = texts([sentences(0.5, 5, 2), sentences(1, level=0.9)])
    assert good == "fr 0 fr 5 fr 2"


def pieces(*seconds: float) -> tuple[Spoken, list[Piece[Spoken]]]:
    file = Spoken(0, "a.wav")
    return file, [
        Piece(file, Window(i, np.zeros(round(s * RATE), np.float32))) for i, s in enumerate(seconds)
    ]


def test_a_recording_of_hours_is_not_held_back_until_its_end():
    file, windows = pieces(*[20.0] * 100)
    events = telling_first(iter([*windows, file]))
    assert next(events) is windows[0]
    assert file.telling is windows[0].window
    file, windows = pieces(3, 4, languages.ENOUGH_SECONDS, 29)
    assert list(telling_first([*windows, file])) == [windows[2], windows[0], windows[1], windows[3], file]
