"""Windows filled up with those behind them: a model that always hears 30 s pays for 30 s.

What lay between is left out, however long it was; the window knows where its stretches were (`Window.at`).
"""

from collections.abc import Iterable, Iterator

from .window import Window


def packed(windows: Iterable[Window], max_seconds: float) -> Iterator[Window]:
    """As few windows as their order allows, none longer than `max_seconds` unless it came so.

    One window is held back, so that a recording may last as long as it likes.
    """
    held: Window | None = None
    for window in windows:
        if held is None:
            held = window
        elif held.seconds + window.seconds <= max_seconds:
            held = held.followed_by(window)
        else:
            yield held
            held = window
    if held is not None:
        yield held
