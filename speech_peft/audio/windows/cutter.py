"""Frames grouped into windows while they come in: a span is given as soon as nothing later can change it.

It knows scores and levels, no samples. Every frame of speech lies in exactly one span, no two spans overlap,
and none is longer than the limit. What is remembered is the window in the making and nothing else, so a pause
may last as long as it likes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from ...errors import ConfigError
from .silero import FRAME
from .window import SAMPLE_RATE

FRAME_SECONDS = FRAME / SAMPLE_RATE
_LEAST = 8  # frames, for padding, speech and a pause
Span = tuple[int, int]
"""First frame, and the frame behind the last."""


@dataclass(frozen=True)
class Cutting:
    """How frames become windows; all in seconds."""

    max_seconds: float = 30.0
    """The longest window."""
    join_gap: float = 2.0
    """A pause this long ends the window even when there is room."""
    min_pause: float = 0.3
    """A shorter one does not end a region of speech."""
    min_speech: float = 0.1
    """Shorter bursts are no speech."""
    pad: float = 0.4
    """Kept before and after speech: onsets and last consonants are quiet. Neighbours share shorter pauses."""
    min_cut: float = 0.1
    """Long speech is cut in a pause of this length; where there is none, at the lowest level."""
    on: float = 0.5
    off: float = 0.35

    def __post_init__(self) -> None:
        if self.limit < _LEAST:
            raise ConfigError(
                f"max_seconds: a window of {self.max_seconds:g} s holds {max(0, self.limit)} frames of "
                f"{1000 * FRAME_SECONDS:g} ms; expected room for at least {_LEAST}"
            )

    @property
    def limit(self) -> int:
        """Whole frames in the longest window; rounded down, since a model takes not a sample more."""
        return int(self.max_seconds * SAMPLE_RATE) // FRAME


class Cutter:
    """Scores of frames in, spans out: `add` one after the other, and `finish` where the stream ends.

    >>> cutter = Cutter(Cutting(join_gap=0.1, pad=0.0, min_speech=0.0))
    >>> [span for score in (0, 1, 1, 0, 0, 0, 0) if (span := cutter.add(score, 0.0))]
    [(1, 3)]
    """

    def __init__(self, cutting: Cutting):
        self.cutting, self.limit = cutting, cutting.limit
        # What is left behind a cut must fit into the next window whatever comes, hence the quarters.
        self.pad, join_gap, self.min_speech = (
            min(_frames(seconds), self.limit // 4)
            for seconds in (cutting.pad, cutting.join_gap, cutting.min_speech)
        )
        self.join_gap = max(self.pad, join_gap)
        self.min_pause = _frames(cutting.min_pause)
        self.min_cut = max(1, min(_frames(cutting.min_cut), self.limit // 8))
        self.at = 0
        """How many frames came in."""
        self._given = 0  # where the last span ended: the next begins no earlier
        self._start: int | None = None  # the first frame of speech of the window in the making
        self._end = 0  # behind its last frame of speech
        self._onset: int | None = None  # where the present region of speech began
        self._last = 0  # behind that region's last frame that sounds
        self._heard: list[tuple[float, float]] = []  # scores and levels since `_start`, or else `_onset`

    @property
    def needed(self) -> int:
        """The first frame that a span still to come may hold."""
        speech = self._start if self._start is not None else self._onset
        return max(self._given, (self.at if speech is None else speech) - self.pad)

    def add(self, score: float, level: float) -> Span | None:
        """The span that ends because of this frame: its probability of speech, and its level in dB."""
        self._follow(score)
        if self._start is None and self._onset is None:
            self._heard.clear()
        else:
            self._heard.append((score, level))
        self.at += 1
        if self._start is None:
            return None
        if self._end + self.pad - self.needed > self.limit:
            return self._cut()
        # A burst that may yet turn out to be speech is waited for.
        pause = (self._onset if self._onset is not None and self._onset >= self._end else self.at) - self._end
        return self._close() if pause > self.join_gap else None

    def finish(self) -> Span | None:
        """The window in the making, where the stream ends."""
        return None if self._start is None else self._close()

    def _follow(self, score: float) -> None:
        """Where speech begins and ends; a region counts from the moment that it is long enough."""
        at = self.at
        if self._onset is None:
            if score < self.cutting.on:
                return
            self._onset = at
        elif score < self.cutting.off:
            if at - self._last >= self.min_pause:
                self._onset = None
            return
        self._last = at + 1
        if self._last - self._onset >= self.min_speech:
            self._start = self._onset if self._start is None else self._start
            self._end = self._last

    def _close(self) -> Span:
        span = self.needed, min(self._end + self.pad, self.at)
        self._given, self._start = span[1], None
        if self._onset is not None and self._onset >= self._end:
            self._heard = self._heard[self._onset - self.at :]
        else:
            self._onset, self._heard = None, []
        return span

    def _cut(self) -> Span:
        """The window so far is full: end it in a pause, and go on behind that."""
        assert self._start is not None
        scores, levels = np.array(self._heard).T
        room = self.needed + self.limit - self._start
        begin, middle, end = _quietest(scores < self.cutting.off, levels, self.min_cut, room)
        span = self.needed, self._start + min(begin + self.pad, middle)
        following = end if middle >= begin else middle
        self._given, self._start = span[1], self._start + following
        self._heard = self._heard[following:]
        return span


def _quietest(
    quiet: Bool[ndarray, " f"], levels: Float64[ndarray, " f"], least: int, room: int
) -> tuple[int, int, int]:
    """A pause to cut in: where it begins, the quietest frame in it or just before, where it ends.

    The longest pause of the last third, if it has at least `least` frames, or else of the second third.
    Without a pause all three are the same: the frame of the lowest level in the last third, `room` frames
    from the start at most.
    """
    smooth = np.convolve(np.pad(levels, 1, "edge"), np.full(3, 1 / 3), "valid")
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False)).reshape(-1, 2)
    long = edges[edges[:, 1] - edges[:, 0] >= least]
    for part in (2 / 3, 1 / 3):
        late = long[long.mean(1) >= part * len(quiet)]
        if len(late):
            begin, end = late[::-1][np.argmax((late[:, 1] - late[:, 0])[::-1])].tolist()
            # A detector hears late that speech has ended; of equal frames the middle is farthest from words.
            frames = np.arange(max(1, begin - 2), end)
            off_middle = np.abs(frames - (begin + end) / 2)
            return begin, int(frames[np.argmin(smooth[frames] + 1e-3 * off_middle)]), end
    third = max(1, len(smooth) * 2 // 3)
    last = smooth[third : room + 1]
    cut = third + len(last) - 1 - int(np.argmin(last[::-1]))
    return cut, cut, cut


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)
