"""Windows filled up over pauses: all speech is in them once, and every moment knows where it was."""

from collections.abc import Iterator

import numpy as np
import pytest

from speech_peft.audio.windows.chunks import FRAME, SAMPLE_RATE, Window, windows
from speech_peft.audio.windows.cutter import Cutting
from speech_peft.audio.windows.packing import packed

LIMIT = 30.0


def stream(speech: list[float], pauses: list[float]) -> np.ndarray:
    """Every sample of speech is its own number, so that it is known where it comes from; pauses are zeros."""
    marks = [round(seconds * SAMPLE_RATE) for pair in zip(speech, pauses, strict=True) for seconds in pair]
    samples = np.arange(1, 1 + sum(marks), dtype=np.float32)
    at = 0
    for count, silent in zip(marks, [False, True] * len(speech), strict=True):
        samples[at : at + count] *= not silent
        at += count
    return samples


def loud(samples: np.ndarray) -> np.ndarray:
    frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    return (frames > 0).any(1).astype(np.float32)


def found(samples: np.ndarray) -> Iterator[Window]:
    blocks = (samples[at : at + 30 * SAMPLE_RATE] for at in range(0, len(samples), 30 * SAMPLE_RATE))
    return windows(blocks, loud, Cutting(join_gap=0.8))


@pytest.mark.parametrize("pause", [0.1, 0.5, 1.0, 5.0, 60.0, 300.0])
def test_speech_on_both_sides_of_a_pause_is_in_one_window_and_knows_where_it_was(pause):
    rng = np.random.default_rng(round(10 * pause))
    # below 2 ** 24 float32 counts every sample
    speech = rng.uniform(0.2, 9.0, 3 if pause > 60 else 8).tolist()
    samples = stream(speech, [pause] * len(speech))
    whole = list(packed(found(samples), LIMIT))
    assert all(window.seconds <= LIMIT for window in whole)
    for window in whole:
        for at in np.flatnonzero(window.samples)[::997].tolist():
            moment = window.at(at / SAMPLE_RATE)
            assert moment == pytest.approx((window.samples[at] - 1) / SAMPLE_RATE, abs=1e-6)
            assert window.of(moment) == pytest.approx(at / SAMPLE_RATE, abs=1e-6)
    heard = np.concatenate([window.samples for window in whole])
    assert np.array_equal(heard[heard > 0], samples[samples > 0])


def test_windows_are_filled_up_as_far_as_their_order_allows():
    pieces = [
        Window(100.0 * i, np.ones(round(s * SAMPLE_RATE), np.float32))
        for i, s in enumerate((12, 9, 10, 20, 30, 1))
    ]
    assert [window.seconds for window in packed(pieces, LIMIT)] == [21, 30, 30, 1]
    assert [window.start for window in packed(pieces, LIMIT)] == [0.0, 200.0, 400.0, 500.0]


def test_a_window_is_given_as_soon_as_the_next_has_no_room_in_it():
    def endless() -> Iterator[Window]:
        at = 0.0
        while True:
            yield Window(at, np.ones(20 * SAMPLE_RATE, np.float32))
            at += 21.0

    assert next(packed(endless(), LIMIT)).start == 0.0


def test_what_was_cut_without_a_pause_goes_on_as_one_stretch():
    first, second = Window(3.0, np.ones(1600, np.float32)), Window(3.1, np.ones(800, np.float32))
    assert first.followed_by(second).joints == ()
    assert first.followed_by(second).end == pytest.approx(3.15)


def joined() -> Window:
    """A second at 10 s, a second at 70 s and one at 200 s."""
    second = np.arange(SAMPLE_RATE, dtype=np.float32)
    scores = np.zeros(31, np.float32)
    parts = [Window(start, second, scores + number) for number, start in enumerate((10.0, 70.0, 200.0))]
    (window,) = packed(parts, LIMIT)
    return window


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ((0.2, 0.6), (10.2, 10.6)),
        ((0.2, 1.0), (10.2, 11.0)),  # it ends with its stretch
        ((1.0, 1.5), (70.0, 70.5)),  # it begins with its stretch
        ((0.4, 1.2), (10.4, 11.0)),  # over a joint it is where most of it is
        ((0.9, 1.7), (70.0, 70.7)),
        ((0.9, 2.3), (70.0, 71.0)),
        ((2.0, 2.0), (200.0, 200.0)),
        ((2.9, 3.0), (200.9, 201.0)),
    ],
)
def test_no_word_lasts_over_what_was_left_out(span, said):
    assert joined().placed(*span) == pytest.approx(said)


@pytest.mark.parametrize("cut", [1, 8000, 16_000, 20_000, 32_000, 47_999])
def test_parts_of_a_window_have_its_samples_and_their_places(cut):
    window = joined()
    left, right = window.part(0, cut), window.part(cut)
    assert np.array_equal(np.concatenate([left.samples, right.samples]), window.samples)
    assert np.array_equal(np.concatenate([left.scores, right.scores]), window.scores)
    for at in range(0, 48_000, 1000):
        part, inside = (left, at) if at < cut else (right, at - cut)
        assert part.at(inside / SAMPLE_RATE) == pytest.approx(window.at(at / SAMPLE_RATE))
    assert right.end == window.end
    assert window.of(right.start) == pytest.approx(cut / SAMPLE_RATE)
