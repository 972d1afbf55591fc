"""Whisper's English rules, asked once for each word instead of once for each text, where that is the same.

The rules are some fifty passes over a text. A text of plain words needs none of them twice: each word becomes
what it becomes alone. Only numbers, hesitations beside an apostrophe, "20 mm" and "it's been" depend on what
stands next to them. Where one of these stands, or anything but letters and common marks, the rules are asked
for that place, with a plain word on either side that parts it from the rest.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from .english import _KEPT

_KNOWN = 1 << 16  # words remembered
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'"))
_WORD = re.compile(r"[a-z]++(?:'[a-z]++)*+")  # possessive: nothing is tried twice, however long a text is
# A full stop right before a letter or a stop is not always dropped: `\.([^0-9]|$)` takes two characters.
_PLAIN = re.compile(rf'(?:{_WORD.pattern}|[ \n\t,?!;:"-]|\.(?=[ \n\t"]|$))*+')
_PERFECT = re.compile(r"'[ds] (?:been|gone|done|got)\b")
_MARKS = ',?!;:"-'
_BRACKETS = re.compile(r"[<>()\[\]]")
_TOKEN = re.compile(r"\S+")
_PLACE = 120  # characters of a place that is remembered
_JOINING = frozenset({"and", "a"})  # parts of a number where others stand beside them: "and a half"
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
        self._token = lru_cache(_KNOWN)(self._token_alone)
        self._place = lru_cache(_KNOWN)(whole.__call__)

    def __call__(self, text: str) -> str:
        plain = text.lower()
        if self.curly:
            plain = plain.translate(_APOSTROPHES)
        if _PLAIN.fullmatch(plain) and not _PERFECT.search(plain):
            words = [self._alone(word) for word in _WORD.findall(plain)]
            if None not in words:
                return " ".join(word for word in words if word)
        if _PERFECT.search(plain) or _KEPT in plain:
            return self.whole(text)
        return " ".join(self._parts(plain))

    def _parts(self, text: str) -> Iterator[str]:
        """What the words of a text become: those that stand alone, and the places where they do not."""
        spans = [found.span() for found in _TOKEN.finditer(text)]
        alone = [self._token(text[start:end]) for start, end in spans]
        brackets = [found.start() for found in _BRACKETS.finditer(text)]
        if brackets:  # what stands between them goes, however much it is
            alone = [
                None if end > brackets[0] and start <= brackets[-1] else word
                for word, (start, end) in zip(alone, spans, strict=True)
            ]
        together = _with_neighbours(alone)
        for is_place, group in groupby(range(len(spans)), key=together.__getitem__):
            if is_place:
                at = list(group)
                place = text[spans[at[0]][0] : spans[at[-1]][1]]
                yield from (self._place if len(place) <= _PLACE else self.whole)(place).split()
            else:
                yield from (word for i in group if (word := alone[i]))

    def _token_alone(self, token: str) -> str | None:
        """What stands between two spaces, in any company; None where that depends on the company."""
        if _PLAIN.fullmatch(token):
            words = [self._alone(word) for word in _WORD.findall(token)]
        else:
            letters = token.strip(_MARKS).removesuffix(".")
            words = [self._alone(letters) if letters.isalpha() else None]
        return None if None in words else " ".join(word for word in words if word)

    def _asked(self, word: str) -> str | None:
        """What a word becomes in any company; None where that depends on the company."""
        parts = word.split("'")
        if self._of_numbers.intersection(parts) or "mm" in parts:
            return None
        if len(parts) > 1 and _HESITATIONS.intersection(parts):
            return None
        words = self.whole(word).split()
        written = "".join(words)
        if self._of_numbers.intersection(words) or not written.isascii() or (words and not written.isalpha()):
            return None
        return " ".join(words)


def _with_neighbours(alone: Sequence[str | None]) -> list[bool]:
    """Which words are read together: those that depend on their company, to the next that parts on each side.

    A word that vanishes parts nothing, and "and" and "a" may belong to a number.
    """
    together = [word is None for word in alone]
    for order in (range(len(alone)), range(len(alone) - 1, -1, -1)):
        reached = False  # from a word that depends on its company, without one that parts
        for at in order:
            word = alone[at]
            if word is None:
                reached = True
            elif reached:
                together[at] = True
                reached = _JOINING.issuperset(word.split())
    return together
