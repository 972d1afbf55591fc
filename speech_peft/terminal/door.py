"""The one door to the terminal: what commands show passes here, and nobody's file name can drive a screen.

Names of files and runs, transcripts and cards are other people's text. Control characters in them would move
the cursor, colour, forge lines, or turn the direction of writing; they are shown as escapes.
"""

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_JOINERS = "\u200c\u200d"  # between letters of Persian and Hindi, and in emoji


def printable(text: object, lines: bool = False) -> str:
    """The text with everything escaped that is not to be seen; line ends and tabs stay only for `lines`."""
    keep = "\n\t" if lines else ""
    return "".join(c if c in keep or _visible(c) else _escaped(c) for c in str(text))


def say(text: object = "", stream: TextIO | None = None, end: str = "\n") -> None:
    """Print text of one or several lines, each of which may hold what others wrote.

    Standard error that nobody reads is not an error; standard output that cannot be written raises OSError.
    """
    to_error = stream is not None and stream is sys.stderr
    stream = stream or sys.stdout
    if stream is None:
        return
    try:
        print(printable(text, lines=True), file=stream, end=end, flush=True)
    except UnicodeEncodeError as error:  # a terminal of another time
        plain = printable(text, lines=True).encode(error.encoding, "backslashreplace").decode(error.encoding)
        print(plain, file=stream, end=end, flush=True)
    except (OSError, ValueError):
        if not to_error:
            raise


def line(text: object) -> None:
    """The same of one line, whatever is in it."""
    say(printable(text))


def complain(text: object) -> None:
    """The same on standard error."""
    say(text, sys.stderr)


@contextmanager
def enduring() -> Iterator[None]:
    """Standard error may be closed, full, or a pipe that nobody reads: a run does not end for that."""
    before = sys.stderr
    sys.stderr = _Enduring(before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stderr = before


def silence(stream: Any) -> None:
    """Let what is still to be written to a broken stream go nowhere, else Python fails at its very end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass  # no file behind it: nothing is flushed at the end


class _Enduring:
    """A stream that takes what is written to it whether or not anybody hears it."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):
            silence(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            silence(self._stream)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _visible(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
