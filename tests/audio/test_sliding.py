"""Windows at equal distances cover a recording, however it streams by."""

from itertools import pairwise

import numpy as np
import pytest

from speech_peft.audio.windows.chunks import SAMPLE_RATE
from speech_peft.audio.windows.sliding import sliding


def cut(total: int, window: int, hop: int, block: int) -> list[tuple[int, np.ndarray]]:
    samples = np.arange(total, dtype=np.float32)
    blocks = [samples[i : i + block] for i in range(0, total, block)]
    return [(round(w.start * SAMPLE_RATE), w.samples) for w in sliding(blocks, window, hop)]


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize(("window", "hop"), [(5, 3), (5, 5), (4, 1)])
@pytest.mark.parametrize("total", [1, 4, 5, 6, 9, 10, 23])
def test_windows_hold_the_samples_at_their_start_and_cover_all(total, window, hop, block):
    windows = cut(total, window, hop, block)
    for start, samples in windows:
        np.testing.assert_array_equal(samples, np.arange(start, start + min(window, total)))
    starts = [start for start, _ in windows]
    assert starts[0] == 0
    assert starts[:-1] == [hop * i for i in range(len(starts) - 1)]
    assert all(later - earlier <= hop for earlier, later in pairwise(starts))
    assert starts[-1] + min(window, total) == total


def test_nothing_has_no_window():
    assert list(sliding([], 5, 3)) == []
    assert list(sliding([np.zeros(0, np.float32)], 5, 3)) == []


def test_a_recording_that_ends_with_a_window_has_no_other():
    assert [start for start, _ in cut(11, 5, 3, 4)] == [0, 3, 6]
