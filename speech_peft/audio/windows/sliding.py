"""Windows at equal distances over a recording that streams by; only one window of samples is held."""

from collections.abc import Iterable, Iterator

import numpy as np

from .chunks import SAMPLE_RATE, Samples, Window


def sliding(blocks: Iterable[Samples], window: int, hop: int) -> Iterator[Window]:
    """Windows of `window` samples, one every `hop` (at most `window`), that together cover the recording.

    A recording no longer than a window is one window of its own length. The last window of a longer one ends
    with the recording and is as long as the others, so it may begin less than a hop after the one before: a
    rest of a few milliseconds alone would say nothing.

    >>> blocks = [np.zeros(7, np.float32), np.zeros(6, np.float32)]
    >>> [round(w.start * SAMPLE_RATE) for w in sliding(blocks, window=5, hop=3)]
    [0, 3, 6, 8]
    """
    held = np.zeros(0, np.float32)  # from the start of the last window that was given
    first = given = 0  # samples before `held`; end of the last window that was given
    following = 0  # where the next window begins, from the start of `held`
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= following + window:
            held, first = held[following:].copy(), first + following
            yield Window(first / SAMPLE_RATE, held[:window].copy())
            given, following = first + window, hop
    end = first + len(held)
    if end > given:
        last = held[-window:].copy()
        yield Window((end - len(last)) / SAMPLE_RATE, last)
