"""SIGTERM is what Ctrl-C is, and neither falls into the middle of what belongs together."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | int | None


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler that ends a run gets what Ctrl-C gets: the summary, and exit code 130."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def held() -> Iterator[None]:
    """A result and the record of it: a first signal waits until both are there, a second does not."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which signals do not interrupt
        return
    waiting: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            raise KeyboardInterrupt

    handlers: dict[int, Handler] = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))  # what is ignored, or ends the process, goes on so
    }
    for number in handlers:
        signal.signal(number, wait)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if waiting:
        signal.raise_signal(waiting[0])
