"""Whatever comes in: each frame of speech lies in one window, none is too long, and little is remembered."""

from collections.abc import Iterator

import numpy as np
import pytest

from speech_peft.audio.windows.chunks import FRAME, SAMPLE_RATE, Window, windows
from speech_peft.audio.windows.cutter import Cutter, Cutting
from speech_peft.errors import ConfigError

LIMIT = 30 * SAMPLE_RATE


def spans(scores: np.ndarray, cutting: Cutting, levels: np.ndarray | None = None) -> list[tuple[int, int]]:
    cutter = Cutter(cutting)
    found = []
    for score, level in zip(scores, scores if levels is None else levels, strict=True):
        found.append(cutter.add(float(score), float(level)))
        assert cutter.at - cutter.needed <= cutter.limit + cutter.join_gap + cutter.min_pause + cutter.pad + 1
        assert len(cutter._heard) <= cutter.at - cutter.needed
    return [span for span in [*found, cutter.finish()] if span]


def turns(rng: np.random.Generator, frames: int, longest: float) -> np.ndarray:
    """Speech and pauses in turns, from single frames to many windows long."""
    scores = np.zeros(frames, np.float32)
    at = 0
    while at < frames:
        on, off = np.exp(rng.uniform(0, np.log(longest), 2)).astype(int)
        scores[at : at + on] = rng.uniform(0.36, 1.0, len(scores[at : at + on]))
        scores[at : at + 1] = 1.0
        at += on + off
    return scores


@pytest.mark.parametrize("seconds", [0.256, 0.4, 1.0, 4.0, 30.0])
def test_every_frame_of_speech_is_in_exactly_one_window_and_none_is_too_long(seconds):
    rng = np.random.default_rng(round(seconds * 1000))
    cutting = Cutting(max_seconds=seconds, min_speech=0.0)
    for _ in range(10):
        scores = turns(rng, 2000, 4 * cutting.limit)
        found = spans(scores, cutting, rng.uniform(-60, 0, len(scores)))
        covered = np.zeros(len(scores), int)
        for first, last in found:
            assert 0 < last - first <= cutting.limit
            covered[first:last] += 1
        assert covered.max() <= 1
        assert covered[scores > 0.35].min() == 1


def test_a_window_is_given_when_its_pause_is_over_the_gap_and_not_later():
    cutter = Cutter(Cutting())
    given = [at for at, score in enumerate([1.0] * 100 + [0.0] * 1000) if cutter.add(score, 0.0)]
    assert given == [100 + cutter.join_gap]


def test_a_burst_too_short_for_speech_neither_makes_a_window_nor_keeps_one_waiting():
    burst, silence = [1.0], [0.0] * 50
    assert spans(np.array((burst + silence) * 40), Cutting()) == []
    (only,) = spans(np.array([1.0] * 100 + (silence + burst) * 40), Cutting())
    assert only == (0, 100 + Cutter(Cutting()).pad)


def test_padding_ends_where_the_neighbour_begins():
    pause, pad = 8, Cutter(Cutting()).pad
    assert pause < 2 * pad
    scores = np.ones(1500)
    scores[800 : 800 + pause] = 0.0
    (_, first), (second, _) = spans(scores, Cutting())
    assert first == second == 800 + pause // 2


def test_a_long_pause_of_the_second_third_is_better_than_a_word_of_the_last():
    scores, levels = np.ones(1500), np.zeros(1500)
    scores[500:530] = 0.0
    levels[700] = -50.0
    (_, first), (second, _), *_ = spans(scores, Cutting(), levels)
    assert 500 < first <= second < 530


def test_where_there_is_no_pause_the_lowest_level_is_cut():
    levels = np.zeros(1200)
    levels[851:854] = -30.0
    (_, first), (second, _) = spans(np.ones(1200), Cutting(), levels)
    assert first == second == 852


def test_a_window_without_room_is_refused():
    with pytest.raises(ConfigError, match="max_seconds"):
        Cutting(max_seconds=0.1)


def numbered(*parts: tuple[int, bool]) -> np.ndarray:
    """Parts of so many frames; samples are their own positions where somebody speaks, and else zero."""
    samples = np.zeros(sum(frames for frames, _ in parts) * FRAME, np.float32)
    at = 0
    for frames, speech in parts:
        if speech:
            samples[at : at + frames * FRAME] = np.arange(at + 1, at + 1 + frames * FRAME)
        at += frames * FRAME
    return samples


def spoken(samples: np.ndarray) -> np.ndarray:
    return (samples[::FRAME] > 0).astype(np.float32)


def cut(samples: np.ndarray, size: int, phase: int) -> Iterator[Window]:
    return windows(np.split(samples, range(phase or size, len(samples), size)), spoken)


def check(found: list[Window], samples: np.ndarray) -> None:
    """Windows hold the samples at their start, do not overlap, and together hold all that is spoken."""
    end = speech = 0
    for window in found:
        first = round(window.start * SAMPLE_RATE)
        assert first >= end
        end = first + len(window.samples)
        assert len(window.samples) <= LIMIT
        np.testing.assert_array_equal(window.samples, samples[first:end])
        speech += np.count_nonzero(window.samples)
    assert speech == np.count_nonzero(samples)


def test_pauses_of_5_to_300_seconds_lose_and_move_no_sample_of_speech_in_streams_side_by_side():
    rng = np.random.default_rng(0)
    sizes = (30 * SAMPLE_RATE, 7001, 16 * FRAME, 100_000)
    pauses = [round(seconds * SAMPLE_RATE / FRAME) for seconds in np.geomspace(5, 300, 24)]
    for beside in np.array_split(pauses, 6):
        streams = [
            numbered((i, False), (int(rng.integers(16, 900)), True), (pause, False), (300, True))
            for i, pause in enumerate(beside.tolist())
        ]
        each = [
            cut(samples, size, int(rng.integers(0, 5000)))
            for samples, size in zip(streams, sizes, strict=True)
        ]
        found = [list(windows) for windows in zip(*zip(*each, strict=True), strict=True)]
        for windows_, samples in zip(found, streams, strict=True):
            assert len(windows_) == 2
            assert windows_[0].start == 0
            check(windows_, samples)


@pytest.mark.parametrize("size", [4000, 30 * SAMPLE_RATE])
def test_long_speech_and_every_shorter_pause_lose_no_sample(size):
    parts = [part for frames in range(1, 90, 2) for part in ((150, True), (frames, False))]
    samples = numbered((2100, True), *parts, (1000, True))
    check(list(cut(samples, size, 100)), samples)
