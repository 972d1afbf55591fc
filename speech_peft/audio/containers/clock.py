"""Where decoded samples belong by the time stamps of their container."""

from fractions import Fraction

_JITTER_SECONDS = 0.1  # by which writers round and hurry; what is more is a gap
_LONGEST_GAP = 24 * 3600.0  # a clock that jumps further was set, nobody was silent
_RESTART_SECONDS = 10.0  # backwards: another recording begins


class Clock:
    """Places blocks of samples one after the other, with room where their time stamps leave some.

    >>> clock = Clock(1000, Fraction(1, 1000), late=0)
    >>> clock.place(7, 500), clock.place(507, 500), clock.place(3007, 500)
    (0, 500, 3000)
    """

    def __init__(self, rate: int, tick: Fraction, late: int, exact: bool = False):
        """`late` samples of silence come first. `exact` follows every time stamp, however small the gap."""
        self.at = 0
        """Samples that are placed, silence included."""
        self.restarts = 0
        self.sought = False
        self._scale, self._late, self._rate = float(tick) * rate, late, rate
        self._jitter = 0 if exact else round(_JITTER_SECONDS * rate)
        self._zero: float | None = None
        """Time stamp of the recording's start, in samples."""

    def begin(self, stamp: float) -> None:
        """The time stamp of the first sample."""
        self._zero = stamp * self._scale - self._late

    def seek(self) -> None:
        """The next block is one from anywhere: its time stamp says where."""
        self.sought = True

    def place(self, stamp: int | None, samples: int) -> int:
        """The position of the next block, in samples."""
        position = self.at if stamp is None else self._position(stamp)
        self.at = position + samples
        return position

    def _position(self, stamp: int) -> int:
        if self._zero is None:
            self.begin(stamp)
            return self._late
        position = round(stamp * self._scale - self._zero)
        if self.sought:
            self.sought = False
            return position
        ahead = position - self.at
        if ahead < -_RESTART_SECONDS * self._rate or ahead > _LONGEST_GAP * self._rate:
            self.restarts += 1
            self._zero = stamp * self._scale - self.at
            return self.at
        return position if ahead > self._jitter else self.at
