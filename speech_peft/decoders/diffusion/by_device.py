"""How many passes and texts a decoder by diffusion takes where it is told `auto`: that follows the device.

A rule, not a measurement of the machine at hand:

                          a CPU    a GPU
    candidates            1        1
    passes of one text    8        16
    passes of several     4        4
    passes of a draft     1        1

One text by `entropy` makes fewer errors than a vote of eight that are masked anew at random, whatever they
cost (12.1 % for 31.6 %, 134 held-out clips), so more than one is taken only where it is asked for. On a CPU
time goes by the work. On a GPU a pass over texts of some dozens of places is as long as launching its
kernels takes, and passes are few beside those of a decoder that takes one for every token. One text ends by
itself: with at most 16 passes it takes 8.0 where with at most 8 it takes 6.7, and 23.5 % of words are wrong
for 26.0 (67 clips, an early decoder; a later one gains nothing). Several texts take all their passes, and
twice as many gain nothing beyond chance (31.3 % for 32.7). A draft of four passes takes as many in all as
one of one (0.85 a token). On a GPU one clip alone was timed (docs/gpu.md).
"""

from typing import Literal

from ...errors import ConfigError

Count = int | Literal["auto"]
MOST = 64


def count_of(given: object, name: str = "") -> Count:
    """What was asked for: a number from 1 to 64, or `auto`, which None is as well.

    Raises ConfigError for anything else; `name` is the option's, where nobody else says it.

    >>> count_of("4"), count_of("auto")
    (4, 'auto')
    """
    if given is None or given == "auto":
        return "auto"
    try:
        number = int(given) if isinstance(given, int | str) and not isinstance(given, bool) else 0
    except ValueError:
        number = 0
    if not 1 <= number <= MOST:
        where = f"{name}: " if name else ""
        raise ConfigError(f"{where}{given!r} is none; expected a whole number from 1 to {MOST}, or auto")
    return number


def texts(candidates: Count) -> int:
    """How many texts a clip is chosen from."""
    return 1 if candidates == "auto" else candidates


def passes(steps: Count, candidates: int, device: str) -> int:
    """How many passes fill that many texts of a clip, at most, on a device as torch calls it."""
    if steps != "auto":
        return steps
    if candidates > 1:
        return 4
    return 8 if device == "cpu" else 16


def drafting(steps: Count) -> int:
    """How many passes fill a draft that the stock decoder reads."""
    return 1 if steps == "auto" else steps
