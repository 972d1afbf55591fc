"""Whisper's English rules, asked once for each word instead of once for each text, where that is the same.

The rules are some fifty passes over a text. A text of plain words needs none of them twice: each word becomes
what it becomes alone. Only numbers, hesitations beside an apostrophe, "20 mm" and "it's been" depend on what
stands next to them; a text with any of these, or with any character but letters and common marks, goes
through the rules as a whole.
"""

import re
from functools import lru_cache

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

_KNOWN = 1 << 16  # words remembered
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'"))
_WORD = re.compile(r"[a-z]++(?:'[a-z]++)*+")  # possessive: nothing is tried twice, however long a text is
# A full stop right before a letter or a stop is not always dropped: `\.([^0-9]|$)` takes two characters.
_PLAIN = re.compile(rf'(?:{_WORD.pattern}|[ \n\t,?!;:"-]|\.(?=[ \n\t"]|$))*+')
_PERFECT = re.compile(r"'[ds] (?:been|gone|done|got)\b")
_HESITATIONS = frozenset({"hmm", "mm", "mhm", "mmm", "uh", "um"})


class WordByWord:
    """Callable like the normaliser it is made of, and gives the same words, with one space between two.

    `curly` says that the normaliser takes every apostrophe for the straight one.
    """

    def __init__(self, whole: EnglishTextNormalizer, curly: bool):
        self.whole, self.curly = whole, curly
        # "and" is only read as part of a number beside other words of numbers.
        self._of_numbers = (whole.standardize_numbers.words - {"and"}) | {"half"}
        self._alone = lru_cache(_KNOWN)(self._asked)

    def __call__(self, text: str) -> str:
        plain = text.lower()
        if self.curly:
            plain = plain.translate(_APOSTROPHES)
        if _PLAIN.fullmatch(plain) and not _PERFECT.search(plain):
            words = [self._alone(word) for word in _WORD.findall(plain)]
            if None not in words:
                return " ".join(word for word in words if word)
        return self.whole(text)

    def _asked(self, word: str) -> str | None:
        """What a word becomes in any company; None where that depends on the company."""
        parts = word.split("'")
        if self._of_numbers.intersection(parts) or "mm" in parts:
            return None
        if len(parts) > 1 and _HESITATIONS.intersection(parts):
            return None
        words = self.whole(word).split()
        if self._of_numbers.intersection(words) or not "".join(words).isascii():
            return None
        return " ".join(words)
