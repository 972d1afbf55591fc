"""Where words end: at the end of their sound, not where the next word begins.

The alignment of tokens gives where each word starts; pauses go to the word before them, or to the one behind.
Sound is told from silence by its level, in frames of 20 ms. Where the level tells nothing (steady noise,
music), words at the ends of sentences are cut to twice the median length, as openai-whisper cuts them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from ...metrics.writing import SENTENCE_END
from .word_times import TimedWord

PAUSE_SECONDS = 0.8
"""No segment spans a longer one."""
FRAME_SECONDS = 0.02
_RATE = 16_000
_QUIET_DB = -70.0  # below full scale: what is quieter is all the same
_QUIETEST_FRAMES, _LOUDEST_FRAMES = 10, 5
_CONTRAST_DB = 15.0  # between silence and speech; with less the level tells nothing
_DEPTH_DB = 35.0  # below the loudest frames: last consonants are quiet
_RISE_DB = 8.0  # above the quietest frames
_CLOSURE_SECONDS = 0.2  # a stop inside a word is no pause
_CLICK_SECONDS = 0.04
_LONGEST_MEDIAN = 0.7


def voiced(samples: Float32[ndarray, " s"]) -> Bool[ndarray, " f"] | None:
    """Which frames of 20 ms hold sound; None where silence cannot be told from it. Samples at 16 kHz."""
    size = round(FRAME_SECONDS * _RATE)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(frames):
        return None
    level = np.maximum(10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-12), _QUIET_DB)
    ranked = np.sort(level)  # not by shares: one word in half a minute is sound
    quiet, loud = ranked[:_QUIETEST_FRAMES][-1], ranked[-_LOUDEST_FRAMES:][0]
    if loud - quiet < _CONTRAST_DB:
        return None
    return level > max(quiet + _RISE_DB, loud - _DEPTH_DB)


def runs(sound: Bool[ndarray, " f"], closure: float = _CLOSURE_SECONDS) -> list[tuple[int, int]]:
    """First and last frame (not included) of each stretch of sound; shorter gaps than `closure` are sound."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sound, [False]])))
    found: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        if found and first - found[-1][1] < closure / FRAME_SECONDS:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return [(first, last) for first, last in found if last - first >= _CLICK_SECONDS / FRAME_SECONDS]


def longest_pause(samples: Float32[ndarray, " s"]) -> float:
    """Seconds of the longest silence, at the ends too; 0 where it cannot be told."""
    sound = voiced(samples)
    if sound is None:
        return 0.0
    edges = [0, *(edge for run in runs(sound) for edge in run), len(sound)]
    return FRAME_SECONDS * max(last - first for first, last in zip(edges[::2], edges[1::2], strict=True))


def trimmed(words: Sequence[TimedWord], samples: Float32[ndarray, " s"]) -> tuple[TimedWord, ...]:
    """The same words, each where it sounds; times are seconds from the start of the samples.

    Of several stretches of sound in a word's span the longest is the word. The first word of a stretch begins
    with it and the last ends with it. What has no sound keeps its start and lasts no longer than other words.
    """
    sound = voiced(samples)
    longest = _longest(words)
    if sound is None:
        return _limited(words, longest)
    stretches = [(first * FRAME_SECONDS, last * FRAME_SECONDS) for first, last in runs(sound)]
    found, owns = [], [_stretch(word, stretches) for word in words]
    for at, (word, own) in enumerate(zip(words, owns, strict=True)):
        if own is None:
            start, end = word.start, min(word.end, word.start + longest)
        else:
            alone_before, alone_behind = own not in owns[:at], own not in owns[at + 1 :]
            start = own[0] if alone_before else max(word.start, own[0])
            end = own[1] if alone_behind else min(word.end, own[1])
        found.append(replace(word, start=start, end=end))
    return tuple(found)


def _stretch(word: TimedWord, stretches: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """The stretch that sounds longest in the word's span; None where less than a frame does.

    A word that the alignment left no time is of the stretch it stands in: the next word of that stretch would
    else begin with it, before this one.
    """
    inside = [(min(last, word.end) - max(first, word.start), (first, last)) for first, last in stretches]
    seconds, own = max(inside, default=(0.0, None))
    half = FRAME_SECONDS / 2
    if seconds > half:
        return own
    if word.end - word.start > half:
        return None
    return next((one for one in stretches if one[0] - half < word.start < one[1] - half), None)


def _longest(words: Sequence[TimedWord]) -> float:
    """Twice the median length of those that have one."""
    lengths = [word.end - word.start for word in words if word.end > word.start]
    return 2 * min(_LONGEST_MEDIAN, float(np.median(lengths))) if lengths else 2 * _LONGEST_MEDIAN


def _limited(words: Sequence[TimedWord], longest: float) -> tuple[TimedWord, ...]:
    """Long words beside the end of a sentence: pauses are there."""
    found: list[TimedWord] = []
    for at, word in enumerate(words):
        start, end = word.start, word.end
        if end - start > longest:
            if word.word.rstrip().endswith(SENTENCE_END) or at == len(words) - 1:
                end = start + longest
            elif not found or found[-1].word.rstrip().endswith(SENTENCE_END):
                start = end - longest
        found.append(replace(word, start=start, end=end))
    return tuple(found)
