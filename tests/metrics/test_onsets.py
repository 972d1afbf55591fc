"""Onsets: found where sounds begin, and matched as well as can be."""

import numpy as np
import pytest

from speech_peft.metrics.metric import Heard, NotMeasured, Sound
from speech_peft.metrics.onsets import Match, OnsetF1, intervals, matched, onsets

RATE = 16_000


def bursts(*starts: float, seconds: float = 2.0, lasting: float = 0.15) -> np.ndarray:
    """Noise that begins at once and dies away, over a soft floor."""
    draw = np.random.default_rng(0)
    samples = 1e-3 * draw.standard_normal(round(seconds * RATE))
    for start in starts:
        size = min(round(lasting * RATE), len(samples) - round(start * RATE))
        fading = np.exp(-np.arange(size) / (size / 4))
        samples[round(start * RATE) :][:size] += 0.5 * draw.standard_normal(size) * fading
    return samples.astype(np.float32)


def test_onsets_are_found_to_within_two_frames():
    wanted = [0.2, 0.71, 1.43]
    found = onsets(bursts(*wanted), RATE)
    assert len(found) == 3
    assert np.abs(found - wanted).max() <= 0.02


def test_a_shift_of_the_sound_is_the_shift_of_its_onsets():
    first, later = (onsets(bursts(0.3 + by, 1.2 + by), RATE) for by in (0.0, 0.35))
    np.testing.assert_allclose(later - first, 0.35, atol=0.0101)


@pytest.mark.parametrize(
    "samples", [np.zeros(RATE, np.float32), np.zeros(0, np.float32)], ids=["silent", "no"]
)
def test_nothing_begins_in_silence(samples):
    assert not len(onsets(samples, RATE))
    assert intervals(samples, RATE) == []


def test_loudness_changes_no_onset():
    sound = bursts(0.4, 1.0)
    np.testing.assert_array_equal(onsets(sound, RATE), onsets(0.01 * sound, RATE))


def test_intervals_begin_at_onsets_and_end_where_the_sound_has_died_away():
    (first, second) = intervals(bursts(0.3, 1.2, lasting=0.4), RATE)
    assert first[0] == pytest.approx(0.3, abs=0.02)
    assert 0.45 < first[1] < 0.75
    assert second[1] <= 2.0


def test_as_many_pairs_are_made_as_can_be():
    # greedy by distance would pair 1.04 with 1.03 and leave two alone
    assert matched([1.0, 1.04], [1.03, 1.08]) == Match(2, 2, 2)
    assert matched([1.0], [0.98, 1.02]) == Match(1, 2, 1)
    assert matched([1.0], [1.06]) == Match(1, 1, 0)


def test_f1_counts_over_all_recordings_and_is_one_where_nothing_was_to_be_found():
    assert (Match(2, 2, 2) + Match(2, 0, 0)).f1 == pytest.approx(2 / 3)
    assert Match().f1 == 1.0


def test_the_metric_compares_with_the_reference():
    clean, moved = Sound(bursts(0.3, 1.2), RATE), Sound(bursts(0.3, 1.5), RATE)
    assert OnsetF1().measure(Heard(clean, clean, clean)) == {"onset_f1": 1.0}
    assert OnsetF1().measure(Heard(moved, clean, clean)) == {"onset_f1": 0.5}
    with pytest.raises(NotMeasured):
        OnsetF1().measure(Heard(clean, clean, Sound(np.zeros(RATE, np.float32), RATE)))
