"""A window whose reading leaves speech without words is heard in two parts, and those again where they do.

Which reading stays is told by what it leaves unheard: that of the parts, where it leaves clearly less. A part
whose reading is not to be believed has heard nothing, so that noise which the detector takes for speech
becomes no words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from ...audio.windows.chunks import SAMPLE_RATE, Window
from ...decoders.words.decoded import Decoded
from ...decoders.words.word_ends import FRAME_SECONDS
from ...decoders.words.word_times import TimedWord
from .unheard import LEAST_SECONDS, Span, speech, unheard

CONFIDENT_LOGPROB = -0.7
"""A part's mean log-probability; below it, nothing was heard."""
SILENT = 0.6
"""Probability of no speech above which a part's text is none."""
_SHORTEST_SECONDS = 0.5  # of a part
_LESS = LEAST_SECONDS / 2  # unheard: so much better the parts must be
_MIDDLE = 0.25  # of the window at either end is not cut in, if there is a pause between

Reading = tuple[Decoded, tuple[TimedWord, ...]]
"""What was written of a window, and the times of its words from the window's start."""
Read = Callable[[Sequence[tuple[int, Window]]], Sequence[Reading]]
"""Reads windows, each with the place of the window it is a part of."""
Heard = list[tuple[Window, Reading]]


@dataclass(eq=False)
class _Node:
    place: int
    window: Window
    reading: Reading
    spoken: Bool[ndarray, " f"]
    believed: bool = True
    """What was doubted once is not cut again: noise would be read down to its last half second."""
    parts: list["_Node"] = field(default_factory=list)

    @cached_property
    def missed(self) -> list[tuple[Span, float]]:
        """Where it has speech without words, and how much."""
        decoded, words = self.reading
        if decoded.text and not words:
            return []  # nobody asked for their times, since there is no room for more
        return unheard(words, self.spoken)


def heard(windows: Sequence[Window], first: Sequence[Reading], read: Read) -> list[Heard]:
    """What stays of each window: its first reading, or those of its parts; all are asked for together.

    What speech was missing in, or has taken the place of that, is marked `unheard`.
    """
    nodes = [
        _Node(place, window, reading, speech(window))
        for place, (window, reading) in enumerate(zip(windows, first, strict=True))
    ]
    level = nodes
    while cut := [(node, parts) for node in level if node.missed and (parts := _halves(node))]:
        readings = iter(read([(node.place, part) for node, parts in cut for part, _ in parts]))
        for node, parts in cut:
            node.parts = [_part(node, part, next(readings), spoken) for part, spoken in parts]
        level = [part for node, _ in cut for part in node.parts if part.believed]
    return [_best(node)[0] for node in nodes]


def _part(whole: _Node, part: Window, reading: Reading, spoken: Bool[ndarray, " f"]) -> _Node:
    """A part with its reading; where that is doubtful by its own measures, with what the whole has there."""
    text = replace(reading[0], looped=reading[0].looped or whole.reading[0].looped)
    if text.avg_logprob > CONFIDENT_LOGPROB and text.no_speech_prob < SILENT and not text.loops:
        return _Node(whole.place, part, (text, reading[1]), spoken)
    before, words = whole.reading
    shift = whole.window.of(part.start)
    here = tuple(
        replace(word, start=word.start - shift, end=word.end - shift)
        for word in words
        if 0 <= (word.start + word.end) / 2 - shift < part.seconds
    )
    rest = replace(before, text="".join(word.word for word in here).strip(), tokens=(), logprobs=())
    return _Node(whole.place, part, (rest, here), spoken, believed=False)


def _best(node: _Node) -> tuple[Heard, float]:
    """What stays of a window, and the seconds of speech it leaves unheard."""
    left = sum(seconds for _, seconds in node.missed)
    own: Heard = [(node.window, node.reading)]
    if node.parts:
        chosen = [_best(part) for part in node.parts]
        less = sum(seconds for _, seconds in chosen)
        if less <= left - _LESS:
            own, left = [one for part, _ in chosen for one in part], less
    spans = [span for span, _ in node.missed]
    return [(window, _marked(reading, window, node.window, spans)) for window, reading in own], left


def _marked(reading: Reading, window: Window, whole: Window, spans: Sequence[Span]) -> Reading:
    shift = whole.of(window.start)
    inside = any(first < shift + window.seconds and last > shift for first, last in spans)
    return (replace(reading[0], unheard=True), reading[1]) if inside else reading


def _halves(node: _Node) -> list[tuple[Window, Bool[ndarray, " f"]]]:
    """The window cut in two in the longest pause about its middle; of no pause, at the quietest frame."""
    window, spoken = node.window, node.spoken
    count = len(spoken)
    least = round(_SHORTEST_SECONDS / FRAME_SECONDS)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~spoken, [False]]))).reshape(-1, 2)
    where = edges.mean(1)
    for margin in (_MIDDLE * count, least):
        pauses = edges[(where >= max(margin, least)) & (where <= count - max(margin, least))]
        if len(pauses):
            first, last = pauses[np.argmax(pauses[:, 1] - pauses[:, 0])].tolist()
            return _cut(node, (first + last) // 2)
    if count < 4 * least:
        return []
    size = round(FRAME_SECONDS * SAMPLE_RATE)
    power = np.square(window.samples[: count * size].reshape(count, size)).mean(1)
    low = int(_MIDDLE * count)
    return _cut(node, low + int(np.argmin(np.convolve(power, np.ones(3), "same")[low : count - low])))


def _cut(node: _Node, frame: int) -> list[tuple[Window, Bool[ndarray, " f"]]]:
    """Both sides of a frame of 20 ms."""
    at = round(frame * FRAME_SECONDS * SAMPLE_RATE)
    left, right = node.window.part(0, at), node.window.part(at)
    return [(left, node.spoken[:frame]), (right, node.spoken[frame:])]
