"""Words end where their sound ends, whatever the alignment says."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_peft.decoders.words.decoded import Decoded
from speech_peft.decoders.words.word_ends import PAUSE_SECONDS, longest_pause, runs, trimmed, voiced
from speech_peft.decoders.words.word_times import TimedWord
from speech_peft.transcribe.result import Word
from speech_peft.transcribe.segments import segments_of

RATE = 16_000


def sounding(spans, seconds: float, floor: float = 1e-4, seed: int = 0) -> np.ndarray:
    """Noise at -20 dB in these spans, at `floor` elsewhere."""
    generator = np.random.default_rng(seed)
    samples = floor * generator.standard_normal(round(seconds * RATE))
    for start, end in spans:
        part = slice(round(start * RATE), round(end * RATE))
        samples[part] = 0.1 * generator.standard_normal(len(samples[part]))
    return samples.astype(np.float32)


def words(*spans) -> tuple[TimedWord, ...]:
    return tuple(TimedWord(f" w{i}", start, end, 1.0) for i, (start, end) in enumerate(spans))


def edges(found) -> list[tuple[float, float]]:
    return [(word.start, word.end) for word in found]


def test_a_word_before_a_pause_ends_with_its_sound():
    samples = sounding([(0.5, 1.2), (1.2, 2.0), (3.5, 4.0)], 5.0)
    found = edges(trimmed(words((0.46, 1.2), (1.2, 3.42), (3.42, 5.0)), samples))
    np.testing.assert_allclose(found, [(0.5, 1.2), (1.2, 2.0), (3.5, 4.0)], atol=0.021)


def test_a_word_behind_a_pause_begins_with_its_sound_and_leaves_the_tail_to_the_word_before():
    samples = sounding([(0.5, 1.5), (2.5, 3.0)], 3.5)
    found = edges(trimmed(words((0.5, 1.4), (1.4, 3.5)), samples))
    np.testing.assert_allclose(found, [(0.5, 1.5), (2.5, 3.0)], atol=0.021)


def test_a_stop_inside_a_word_is_no_pause():
    samples = sounding([(0.5, 0.8), (0.9, 1.3)], 2.0)
    np.testing.assert_allclose(edges(trimmed(words((0.5, 2.0)), samples)), [(0.5, 1.3)], atol=0.021)


def test_a_word_without_sound_lasts_no_longer_than_others():
    samples = sounding([(0.0, 0.9)], 9.0)
    (*_, unheard) = trimmed(words((0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (5.0, 9.0)), samples)
    assert unheard.start == 5.0
    assert unheard.end <= 5.0 + 2 * 0.7


def test_where_the_level_tells_nothing_long_words_beside_the_ends_of_sentences_are_cut():
    noise = sounding([(0.0, 8.0)], 8.0)
    assert voiced(noise) is None
    assert longest_pause(noise) == 0.0
    said = [(" One", 0.0, 0.4), (" two.", 0.4, 3.0), (" Three", 3.0, 5.0), (" four", 5.0, 8.0)]
    found = trimmed([TimedWord(*word, 1.0) for word in [*said[:2], (" a", 3.0, 3.2), *said[2:]]], noise)
    longest = 2 * 0.7
    assert found[1].end == pytest.approx(0.4 + longest)
    assert all(word.end - word.start <= max(longest, 2.0) + 1e-9 for word in found)
    assert found[-1].end == pytest.approx(5.0 + longest)


def test_a_word_without_time_inside_a_stretch_begins_it_and_the_next_follows():
    samples = sounding([(0.5, 1.5), (2.1, 3.0)], 3.5)
    found = edges(trimmed(words((0.5, 2.5), (2.5, 2.5), (2.5, 3.5)), samples))
    np.testing.assert_allclose(found, [(0.5, 1.5), (2.1, 2.5), (2.5, 3.0)], atol=0.021)


@given(
    st.lists(st.integers(0, 300), min_size=2, max_size=12),
    st.lists(st.integers(2, 40), min_size=1, max_size=6),
)
def test_no_word_begins_before_the_one_that_was_said_before_it(bounds, lengths):
    """Wherever the alignment puts them, on its grid of 20 ms, some without any time."""
    grid = [0.02 * at for at in sorted(bounds)]
    loud, at = [], 0.2
    for length in lengths:
        loud.append((at, at + 0.02 * length))
        at += 0.02 * length + 0.3
    found = edges(trimmed(words(*pairwise(grid)), sounding(loud, 6.5)))
    assert all(start <= end + 1e-9 for start, end in found)
    assert all(one[0] <= other[0] + 1e-9 for one, other in pairwise(found))


def test_silence_has_no_sound_and_nothing_breaks():
    silence = np.zeros(RATE, np.float32)
    assert trimmed((), silence) == ()
    assert len(trimmed(words((0.0, 1.0)), silence)) == 1
    assert voiced(np.zeros(0, np.float32)) is None


spans = st.lists(
    st.tuples(st.floats(0.1, 2.0), st.floats(0.0, 3.0)), min_size=1, max_size=6
)  # length of a word, pause behind it


@given(spans, st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7), st.booleans())
def test_no_segment_spans_a_pause(lengths, share, short):
    """Whatever part of a pause the alignment gives to which word."""
    at, said = 0.3, []
    for length, pause in lengths:
        said.append((at, at + length))
        at += length + pause
    begins = [said[0][0]]
    pauses = [(end, start) for (_, end), (start, _) in pairwise(said)]
    begins += [end + part * (start - end) for (end, start), part in zip(pauses, share, strict=False)]
    total = at + 0.5
    samples = sounding(said, total)
    aligned = words(*zip(begins, [*begins[1:], total], strict=True))
    found = [Word(w.word, w.start, w.end, 1.0) for w in trimmed(aligned, samples)]
    assert [w.word for w in found] == [w.word for w in aligned]
    flat = [edge for word in found for edge in (word.start, word.end)]
    assert flat == sorted(flat)
    text = "".join(word.word for word in found).strip()
    decoded = Decoded(text, (1,), -0.1, 0.0)
    segments = segments_of([((decoded, total, tuple(found)), 0.0)], total + 1 if short else 8.0)
    assert " ".join(segment.text for segment in segments) == text
    for start, end in [pause for pause in pauses if pause[1] - pause[0] > PAUSE_SECONDS + 0.05]:
        assert not [s for s in segments if s.start < start - 0.03 and s.end > end + 0.03]
    if any(end - start > PAUSE_SECONDS + 0.05 for start, end in pauses):
        assert longest_pause(samples) > PAUSE_SECONDS


def test_short_gaps_join_and_clicks_are_no_sound():
    sound = np.zeros(100, bool)
    sound[[*range(10, 20), *range(25, 40), 60]] = True
    assert runs(sound) == [(10, 40)]
