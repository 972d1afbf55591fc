"""No speech of a window stays without words unnoticed, and what is not speech becomes none."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from speech_peft.audio.windows.chunks import FRAME, Window
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.decoders.words.word_times import TimedWord
from speech_peft.transcribe.hearing import parts
from speech_peft.transcribe.hearing.parts import Heard, Reading
from speech_peft.transcribe.hearing.unheard import LEAST_SECONDS, may_lack, speech, unheard

RATE = 16_000
SENTENCES = ((0.5, 2.5), (4.0, 5.5), (7.0, 9.0), (10.0, 13.0), (14.5, 15.5))
"""Seconds of a window of 16 s that begins at 100 s of its recording."""
START = 100.0
LETTERS = "as much as is said in three seconds"


def window(spans: Sequence[tuple[float, float]] = SENTENCES, seconds: float = 16.0) -> Window:
    """Noise in these spans, which the detector takes for speech."""
    generator = np.random.default_rng(0)
    samples = 1e-4 * generator.standard_normal(round(seconds * RATE))
    scores = np.zeros(-(-len(samples) // FRAME), np.float32)
    for first, last in spans:
        part = slice(round(first * RATE), round(last * RATE))
        samples[part] = 0.1 * generator.standard_normal(len(samples[part]))
        scores[part.start // FRAME : part.stop // FRAME] = 1.0
    return Window(START, samples.astype(np.float32), scores)


def reading(whole: Window, said: Sequence[int], logprob: float = -0.1, silence: float = 0.0) -> Reading:
    """The words of these sentences, each as long as it sounds, where they are in a window or a part of it."""
    shift = whole.start - START
    words = tuple(
        TimedWord(f" sentence{i} {LETTERS}", SENTENCES[i][0] - shift, SENTENCES[i][1] - shift, 1.0)
        for i in said
    )
    text = "".join(word.word for word in words).strip()
    return Decoded(text, tuple(said), logprob, silence), words


def inside(part: Window) -> list[int]:
    """The sentences that a part holds whole."""
    first, last = part.start - START, part.end - START
    return [i for i, (begin, end) in enumerate(SENTENCES) if first <= begin and end <= last]


class Asked:
    """A decoder with a script; it remembers what it was asked for."""

    def __init__(self, hears: Callable[[Window], Reading]):
        self.hears, self.places = hears, list[int]()

    def __call__(self, windows: Sequence[tuple[int, Window]]) -> list[Reading]:
        self.places += [place for place, _ in windows]
        return [self.hears(part) for _, part in windows]


def said(heard: Heard) -> list[tuple[str, float, float]]:
    """Each word with where it stands in the recording."""
    return [
        (word.word.split()[0], round(part.start + word.start, 2), round(part.start + word.end, 2))
        for part, (_, words) in heard
        for word in words
    ]


EVERYTHING = [(f"sentence{i}", START + first, START + last) for i, (first, last) in enumerate(SENTENCES)]


@pytest.mark.parametrize("first", [[0], [0, 1], [4], [0, 2, 4], [1, 2, 3, 4], []])
@pytest.mark.parametrize("most", [1, 2, 4])
def test_sentences_that_a_decoder_left_out_are_heard_in_parts_of_the_window(first, most):
    """It writes so many sentences of what it is given, and ends."""
    whole = window()
    asked = Asked(lambda part: reading(part, inside(part)[:most]))
    (found,) = parts.heard([whole], [reading(whole, first)], asked)
    assert said(found) == EVERYTHING


def test_what_was_unheard_at_first_is_flagged_and_the_rest_is_not():
    whole = window()
    asked = Asked(lambda part: reading(part, inside(part)))
    (found,) = parts.heard([whole], [reading(whole, [0, 1, 2, 3])], asked)
    flags = {word: one[0].unheard for part, one in found for word, _, _ in said([(part, one)])}
    assert flags["sentence4"]
    assert not flags["sentence0"]


def test_parts_of_what_was_first_read_as_a_loop_are_flagged_for_that_too():
    whole = window()
    text, words = reading(whole, [0])
    (found,) = parts.heard(
        [whole], [(replace(text, looped=True), words)], Asked(lambda part: reading(part, inside(part)))
    )
    assert said(found) == EVERYTHING
    assert all(text.looped for _, (text, _) in found)


def test_only_windows_with_unheard_speech_are_read_again():
    whole = window()
    asked = Asked(lambda part: reading(part, inside(part)))
    readings = [reading(whole, range(5)), reading(whole, [0]), reading(whole, range(5))]
    first, second, third = parts.heard([whole] * 3, readings, asked)
    assert set(asked.places) == {1}
    assert first == [(whole, readings[0])]
    assert third == [(whole, readings[2])]
    assert said(second) == EVERYTHING


@pytest.mark.parametrize("doubt", [{"logprob": -1.1}, {"silence": 0.8}])
def test_noise_that_the_detector_takes_for_speech_becomes_no_words(doubt):
    """The third stretch is noise, of which the decoder writes something that it doubts."""

    def hears(part: Window) -> Reading:
        return (
            reading(part, inside(part), **doubt)
            if inside(part) == [2]
            else reading(part, [i for i in inside(part) if i != 2])
        )

    whole = window()
    (found,) = parts.heard([whole], [reading(whole, [0, 1, 3, 4])], Asked(hears))
    assert said(found) == [EVERYTHING[i] for i in (0, 1, 3, 4)]
    assert any(text.unheard for _, (text, _) in found)


def test_a_part_that_is_not_believed_leaves_what_was_first_read_there():
    def hears(part: Window) -> Reading:
        return reading(part, inside(part), logprob=-1.1 if 0 in inside(part) else -0.1)

    whole = window()
    (found,) = parts.heard([whole], [reading(whole, [0, 1])], Asked(hears))
    assert said(found) == EVERYTHING


def test_readings_that_hear_no_more_are_not_taken():
    whole = window()
    first = reading(whole, [0, 1, 3])
    (found,) = parts.heard([whole], [first], Asked(lambda part: reading(part, [])))
    assert [(one, text.text) for one, (text, _) in found] == [(whole, first[0].text)]
    assert found[0][1][0].unheard


def test_noise_of_any_length_is_read_twice_at_most():
    """All of it is taken for speech: both halves are doubted, and no smaller part is read."""
    whole = window([(0.0, 30.0)], 30.0)
    asked = Asked(lambda part: (Decoded("you", (1,), -1.5, 0.8), (TimedWord(" you", 0.0, 0.3, 0.1),)))
    parts.heard([whole], [reading(whole, [])], asked)
    assert len(asked.places) == 2


@pytest.mark.parametrize("at", [0.0, 3.0, 7.0])
@pytest.mark.parametrize(("more", "found"), [(-0.1, 0), (0.1, 1)])
def test_speech_between_words_counts_from_a_least_length(at, more, found):
    seconds = LEAST_SECONDS + more
    spoken = np.zeros(500, bool)
    spoken[round(at / 0.02) : round((at + seconds) / 0.02)] = True
    words = [TimedWord(" before", max(0.0, at - 1), at, 1.0), TimedWord(" behind", at + seconds, at + 9, 1.0)]
    assert [span for span, _ in unheard(words, spoken)] == [
        pytest.approx((at, at + seconds), abs=0.011)
    ] * found


def test_a_word_that_the_alignment_draws_over_a_sentence_does_not_explain_it():
    spoken = np.ones(400, bool)
    ((span, seconds),) = unheard([TimedWord(" press", 0.0, 8.0, 1.0)], spoken)
    assert span[1] == pytest.approx(8.0)
    assert seconds > 6


def test_times_are_asked_for_only_where_speech_may_lack_words():
    spoken = np.ones(100, bool)
    assert may_lack("Two", spoken)
    assert not may_lack("As much as can be said in two seconds", spoken)


def test_speech_is_what_the_detector_and_the_level_both_take_for_it():
    whole = window()
    frames = speech(whole)
    assert frames[50:120].all()
    assert not frames[135:190].any()
    assert not speech(Window(0.0, whole.samples, np.zeros_like(whole.scores))).any()
    assert not speech(Window(0.0, whole.samples)).any()


@pytest.mark.parametrize("spans", [((0.0, 16.0),), ((2.0, 14.0),), ((0.0, 0.6),)])
def test_speech_without_a_pause_is_cut_into_parts_that_hold_all_of_its_samples(spans):
    whole = window(spans)
    asked: list[Window] = []

    def read(windows: Sequence[tuple[int, Window]]) -> list[Reading]:
        asked.extend(part for _, part in windows)
        return [reading(part, []) for _, part in windows]

    parts.heard([whole], [reading(whole, [])], read)
    for left, right in zip(asked[::2], asked[1::2], strict=True):
        assert left.end == pytest.approx(right.start)
        assert min(left.seconds, right.seconds) >= 0.5
    if asked:
        np.testing.assert_array_equal(np.concatenate([part.samples for part in asked[:2]]), whole.samples)
