"""The page: complete, safe with any text, small, and alone in the world."""

import base64
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from speech_peft.bench.report.asr import render, worst_first
from speech_peft.bench.report.page import Limits, relative_link
from speech_peft.bench.report.players import player, spectrogram
from speech_peft.bench.scores.asr import Options, Run, score, scores
from speech_peft.errors import AudioError
from speech_peft.metrics.normalise import normaliser
from speech_peft.predictions.words import Prediction

SCRIPT = "<script>alert(1)</script>"
QUOTE = "\"onerror=alert(1) x='"
rule = normaliser("none")


def prediction(name: str, text: str, heard: str, **fields) -> Prediction:
    return Prediction(name, f"audio/{name}.wav", 2.0, 0.1, text, heard, **fields)


def tone(_: Prediction) -> tuple[np.ndarray, int]:
    seconds = np.arange(32_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32), 16_000


def page(predictions, load=tone, names=("base", "phone"), folder="out", **options) -> str:
    runs = [Run(name, score(predictions, rule)) for name in names]
    return render(scores(runs, rule, Options(resamples=200)), runs, folder, load, **options)


class Elements(HTMLParser):
    """Every tag with its attributes, as a browser would see them."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_hostile_text_stays_text_wherever_it_comes_from():
    hostile = SCRIPT + QUOTE
    row = Prediction(
        hostile,
        f"audio/{hostile}.wav",
        2.0,
        0.1,
        f"hello {hostile}",
        f"{hostile} bye",
        speaker=hostile,
        lang=hostile,
        error=hostile,
        columns={"room": hostile},
    )
    other = prediction("b", "a", "b", columns={"room": "hall"})

    def broken(_):
        raise AudioError(hostile, hostile)

    runs = [Run(hostile, score([row, other], rule), config={hostile: hostile}, hardware={"cpu": hostile})]
    found = scores(runs, rule, Options(resamples=50, slice_by=("room", "lang"), min_n=1))
    text = render(found, runs, "out", broken, title=hostile)
    elements = Elements(text)
    assert len(elements.all("script")) == 1
    assert not [attributes for _, attributes in elements.found if "onerror" in attributes]
    assert SCRIPT not in text
    assert html.escape(SCRIPT) in text


def test_page_loads_nothing_from_elsewhere():
    text = page([prediction("a", "one two", "one too")])
    for _, attributes in Elements(text).found:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert not re.match(r"(?i)\s*(https?:|//|javascript:)", attributes.get(name) or "")
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.parametrize("name", ["javascript:alert(1)", "a b#c?d.wav", "æ–\udcff.wav", "x\"y'.wav"])
def test_links_to_files_are_quoted_paths(name, tmp_path):
    link = relative_link(str(tmp_path / name), tmp_path)
    assert re.fullmatch(r"[\w.~%/-]+", link, re.ASCII)


def test_worst_utterance_of_the_last_run_comes_first():
    base = Run("base", score([prediction("a", "x y", "x y"), prediction("b", "x y", "p q")], rule))
    new = Run("new", score([prediction("a", "x y", "x q"), prediction("b", "x y", "x y")], rule))
    assert [next(iter(row.values())).prediction.id for row in worst_first([base, new])] == ["a", "b"]


def test_words_said_into_silence_are_worse_than_any_rate():
    run = Run("a", score([prediction("loud", "x", "p q r s"), prediction("silent", "", "thanks")], rule))
    assert worst_first([run])[0]["a"].prediction.id == "silent"


def test_alignment_marks_each_kind_of_error():
    text = page([prediction("a", "press one for all sales calls", "press for all cells calls now")])
    body = re.sub(r"\s+", " ", text[text.index('id="rows"') :])
    assert "press <del>one</del> for all" in body
    assert '<span class="s"><del>sales</del> <ins>cells</ins></span>' in body
    assert "<ins>now</ins>" in body


def test_audio_is_embedded_until_the_budget_is_spent_and_linked_afterwards():
    rows = [prediction(f"u{at}", "x", "y") for at in range(4)]
    one = len(player(*tone(rows[0]))) + len(spectrogram(tone(rows[0])[0]))
    sources = [
        element["src"]
        for element in Elements(page(rows, limits=Limits(media_bytes=2 * one))).all("audio")
        if element["src"]
    ]
    assert [source.startswith("data:audio/mpeg") for source in sources] == [True, True, False, False]
    assert sources[2].startswith("../audio/u")


def test_long_recordings_are_linked():
    text = page([replace(prediction("a", "x", "y"), duration=3600.0)])
    assert "data:audio" not in text
    assert 'src="../audio/a.wav"' in text


def test_a_recording_that_cannot_be_read_is_said_to_be_so():
    def missing(_):
        raise AudioError("a.wav", "no such file")

    assert "no player: a.wav: no such file" in page([prediction("a", "x", "y")], load=missing)


def test_rows_beyond_the_limit_are_counted():
    text = page([prediction(f"u{at}", "x", "y") for at in range(5)], load=None, limits=Limits(rows=2))
    assert "The 3 best utterances are not shown" in text


def test_five_hundred_rows_stay_under_twenty_megabytes():
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 8).astype(np.float32)
    said = " ".join(["one two three four five"] * 4)
    rows = [replace(prediction(f"u{at}", said, said[:-at:2]), duration=8.0) for at in range(1, 501)]
    sound, picture = player(noise, 16_000), spectrogram(noise)
    assert len(sound) < 48_000
    with pytest.MonkeyPatch.context() as patch:  # the same noise 500 times: encode it once
        patch.setattr("speech_peft.bench.report.page.player", lambda *_: sound)
        patch.setattr("speech_peft.bench.report.page.spectrogram", lambda *_: picture)
        text = page(rows, load=lambda _: (noise, 16_000))
    assert len(text.encode()) < 20_000_000


def test_empty_run_of_wordless_files_has_a_page():
    text = page([prediction("a", "", ""), prediction("b", "", "")], load=None)
    assert "–" in text


def pixels(uri: str) -> np.ndarray:
    """The palette indices of a spectrogram, read back from the PNG."""
    opened = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert opened.mode == "P"
    return np.asarray(opened)


def test_spectrogram_of_a_tone_is_bright_at_its_frequency_only():
    image = pixels(spectrogram(tone(prediction("a", "", ""))[0]))
    brightest = image.mean(axis=1).argmax()
    assert image.shape == (64, 320)
    assert 64 - 1 - brightest == 440 // 125
    assert image[:32].max() == 0


@pytest.mark.parametrize("samples", [0, 1, 700])
def test_tiny_or_silent_clips_still_make_a_picture(samples):
    assert pixels(spectrogram(np.zeros(samples, np.float32))).max() == 0


def test_a_picture_has_four_bits_a_pixel_and_the_colours_of_the_palette():
    png = base64.b64decode(spectrogram(tone(prediction("a", "", ""))[0]).partition(",")[2])
    assert png[24] == 4  # of the header: bits of a pixel
    colours = {colour for _, colour in Image.open(io.BytesIO(png)).convert("RGB").getcolors()}
    assert {(0x00, 0x00, 0x04), (0xFC, 0xFD, 0xBF)} < colours  # of silence and of the loudest
