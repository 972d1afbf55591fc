"""Text normalisers: what counts as the same word.

A word error rate means nothing without its normaliser, so each has an id and a version that are stored in
every score. A change that moves any score takes a new version.

none        splits at white space, nothing else
basic       Whisper's BasicTextNormalizer: lower case, no brackets, no symbols. It also strips combining
            marks, which are vowels in Devanagari, Thai or Arabic, and so flatters the score there
marks       `basic`, but every combining mark stays
whisper-en  Whisper's EnglishTextNormalizer (contractions, numbers, titles) with its table of spellings, as
            leaderboards use it
english     the same, but numbers keep their units, signs and zeros: "one dollar" is not "one"
auto        `english` for English, `marks` elsewhere; scores say how many utterances met which
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from ..errors import ConfigError, did_you_mean

_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]+?\)")


@dataclass(frozen=True)
class Normaliser:
    """Callable as `normaliser(text, language)`; the id and version go into every score."""

    id: str
    version: str
    rule: Callable[[str, str], str]

    def __call__(self, text: str, language: str = "") -> str:
        return " ".join(self.rule(text, language).split())

    def meets(self, language: str) -> str:
        """The id of the rule that texts of this language meet: what `auto` chooses, else its own."""
        return _chosen(language) if self.id == "auto" else self.id


def normaliser(name: str = "auto") -> Normaliser:
    """The normaliser of this id, one of NAMES.

    >>> normaliser("basic")("Hello, (cough) WORLD!")
    'hello world'
    """
    if name not in _ALL:
        raise ConfigError(f"no normaliser is called {name!r}. {did_you_mean(name, _ALL)}")
    return _ALL[name]


def language_code(language: str) -> str:
    """`en` of `en`, `EN-us` or `en_GB`; empty when unknown. Whisper's English name is accepted too."""
    code = re.split(r"[-_]", language.strip().lower(), maxsplit=1)[0]
    return "en" if code == "english" else code


def _drop(text: str, categories: str) -> str:
    text = _BRACKETS.sub("", text.lower())
    kept = (
        " " if unicodedata.category(char)[0] in categories else char
        for char in unicodedata.normalize("NFKC", text)
    )
    return "".join(kept).lower()


def _auto(text: str, language: str) -> str:
    return _ALL[_chosen(language)].rule(text, language)


def _chosen(language: str) -> str:
    return "english" if language_code(language) == "en" else "marks"


@cache
def _whisper() -> Callable[[str], str]:
    # A second's import that only English scores need. This module alone does not load torch.
    from .english import whisper
    from .word_by_word import WordByWord

    return WordByWord(whisper(), curly=False)


@cache
def _english() -> Callable[[str], str]:
    from .english import Mended
    from .word_by_word import WordByWord

    return WordByWord(Mended(), curly=True)


_ALL = {
    item.id: item
    for item in (
        Normaliser("none", "1", lambda text, _: text),
        Normaliser("basic", "1", lambda text, _: _drop(text, "MSP")),
        Normaliser("marks", "1", lambda text, _: _drop(text, "SP")),
        Normaliser("whisper-en", "2", lambda text, _: _whisper()(text)),
        Normaliser("english", "1", lambda text, _: _english()(text)),
        Normaliser("auto", "2", _auto),
    )
}
NAMES = tuple(_ALL)
