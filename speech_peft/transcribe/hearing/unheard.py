"""Speech that a reading has no words for: what the detector hears and the times of the words leave over.

A decoder that meets several sentences in one window may end after some of them, or skip one, and be sure of
what it wrote. The alignment gives every moment to some word all the same, so a word is believed to last no
longer than its letters take.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from ...audio.windows.chunks import FRAME, SAMPLE_RATE, Window
from ...decoders.words.word_ends import FRAME_SECONDS, voiced
from ...decoders.words.word_times import TimedWord

LEAST_SECONDS = 0.7
"""Of speech between two words: less is a breath, a click, or the rest of a word."""
_SPEECH = 0.5  # a detector's probability
_DRAWN, _SLOWEST, _SLOWEST_DIGIT = 0.6, 0.12, 0.5  # seconds: what a word is drawn out, and a letter of it
_FASTEST, _FASTEST_DIGIT = 0.05, 0.15

Span = tuple[float, float]


def speech(window: Window) -> Bool[ndarray, " f"]:
    """Which frames of 20 ms are speech, by the detector and by their level; the detector's word alone where
    the level tells nothing, and none where there was no detector."""
    size = round(FRAME_SECONDS * SAMPLE_RATE)
    count = len(window.samples) // size
    if not count or not len(window.scores):
        return np.zeros(count, bool)
    centres = (np.arange(count) * size + size // 2) // FRAME
    spoken = window.scores[np.minimum(centres, len(window.scores) - 1)] > _SPEECH
    sound = voiced(window.samples)
    return spoken if sound is None else spoken & sound


def unheard(words: Sequence[TimedWord], spoken: Bool[ndarray, " f"]) -> list[tuple[Span, float]]:
    """Each stretch between words (or the window's ends) that holds speech: from its first to its last, and
    seconds of speech in it; those of less than `LEAST_SECONDS` are left out.

    >>> word = TimedWord(" hello", 0.0, 0.5, 1.0)
    >>> unheard([word], np.ones(100, bool)), unheard([word], np.ones(30, bool))
    ([((0.5, 2.0), 1.5)], [])
    """
    free = np.ones(len(spoken), bool)
    for word in words:
        end = min(word.end, word.start + _longest(word.word))
        free[_frame(word.start) : _frame(end)] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]])))
    found: list[tuple[Span, float]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        inside = [first + at for at in np.flatnonzero(spoken[first:last]).tolist()]
        seconds = FRAME_SECONDS * len(inside)
        if seconds >= LEAST_SECONDS - FRAME_SECONDS / 2:
            found.append(((inside[0] * FRAME_SECONDS, (inside[-1] + 1) * FRAME_SECONDS), seconds))
    return found


def may_lack(text: str, spoken: Bool[ndarray, " f"]) -> bool:
    """Whether the fastest speaker of the text leaves enough speech for more; times of words need not be asked
    where not."""
    spare = FRAME_SECONDS * float(spoken.sum()) - _seconds(text, _FASTEST, _FASTEST_DIGIT)
    return spare >= LEAST_SECONDS


def _longest(word: str) -> float:
    return _DRAWN + _seconds(word, _SLOWEST, _SLOWEST_DIGIT)


def _seconds(text: str, letter: float, digit: float) -> float:
    letters = [char for char in text if char.isalnum()]
    digits = sum(char.isdigit() for char in letters)
    return letter * (len(letters) - digits) + digit * digits


def _frame(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)
