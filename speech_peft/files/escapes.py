"""Text on its way into a file: one door to each format, as texts, labels and file names hold anything."""

import html
import re
import unicodedata

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_TAG = re.compile(r"<(?=[a-zA-Z/!])")


def line(text: str) -> str:
    """The text in one line, whatever ends lines in it; control characters are left out.

    >>> line("one\\ntwo\\tthree")
    'one two three'
    """
    joined = " ".join(text.split())  # also at U+2028 and the like
    return "".join(char for char in joined if unicodedata.category(char) != "Cc")


def srt(text: str) -> str:
    """SubRip knows no escapes: what players would take for times or tags is written by its likes."""
    return _TAG.sub("‹", _cue(text))


def vtt(text: str) -> str:
    """WebVTT takes `<` for a tag and `&` for the start of an escape, and has escapes for both."""
    return html.escape(_cue(text), quote=False)


def _cue(text: str) -> str:
    """An arrow would start a new cue; pysubs2 drops what braces hold and ends a line at a backslash and n."""
    plain = line(text).replace("-->", "→").replace("{", "(").replace("}", ")")
    return re.sub(r"\\(?=[nNh])", "＼", plain)


def csv(text: str) -> str:
    """An apostrophe before what a spreadsheet would run as a formula; nothing else changes.

    >>> csv('=HYPERLINK("x")')
    '\\'=HYPERLINK("x")'
    """
    return f"'{text}" if text.startswith(_FORMULA) else text
