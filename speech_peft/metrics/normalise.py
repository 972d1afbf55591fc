"""Text normalisers: what counts as the same word.

A word error rate means nothing without its normaliser, so each has an id and a version that are stored in
every score. A change that moves any score takes a new version.

none        splits at white space, nothing else
basic       Whisper's BasicTextNormalizer: lower case, no brackets, no symbols. It also strips combining
            marks, which are vowels in Devanagari, Thai or Arabic, and so flatters the score there
whisper-en  Whisper's EnglishTextNormalizer (contractions, numbers, titles) with a short spelling table
auto        `whisper-en` for English; elsewhere `basic`, but every combining mark stays
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from ..errors import ConfigError, did_you_mean

# Written without spaces between words: there a word error rate measures the segmenter, so CER leads.
CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo"})

_SPELLINGS = """
analyse/analyze apologise/apologize apologised/apologized behaviour/behavior cancelled/canceled
cancelling/canceling catalogue/catalog centre/center centres/centers cheque/check cheques/checks
colour/color colours/colors customise/customize defence/defense dialled/dialed dialling/dialing
dialogue/dialog enquiries/inquiries enquiry/inquiry favour/favor favourite/favorite finalise/finalize
fulfil/fulfill grey/gray honour/honor labelled/labeled labour/labor licence/license litre/liter
metre/meter metres/meters minimise/minimize modelling/modeling neighbour/neighbor normalise/normalize
offence/offense organisation/organization organise/organize programme/program programmes/programs
realise/realize realised/realized recognise/recognize recognised/recognized signalling/signaling
theatre/theater travelled/traveled traveller/traveler travelling/traveling tyre/tire
"""

_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]+?\)")


@dataclass(frozen=True)
class Normaliser:
    """Callable as `normaliser(text, language)`; the id and version go into every score."""

    id: str
    version: str
    rule: Callable[[str, str], str]

    def __call__(self, text: str, language: str = "") -> str:
        return " ".join(self.rule(text, language).split())


def normaliser(name: str = "auto") -> Normaliser:
    """The normaliser of this id: `none`, `basic`, `whisper-en` or `auto`.

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
    return _english()(text) if language_code(language) == "en" else _drop(text, "SP")


@cache
def _english() -> Callable[[str], str]:
    # A second's import that only English scores need. This module alone does not load torch.
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer(_spellings())


def _spellings() -> dict[str, str]:
    """British to American. Whisper's own table of 1,700 words is a download; these are the frequent ones."""
    pairs = (pair.partition("/") for pair in _SPELLINGS.split())
    return {british: american for british, _, american in pairs}


_ALL = {
    item.id: item
    for item in (
        Normaliser("none", "1", lambda text, _: text),
        Normaliser("basic", "1", lambda text, _: _drop(text, "MSP")),
        Normaliser("whisper-en", "1+spellings.1", lambda text, _: _english()(text)),
        Normaliser("auto", "1+spellings.1", _auto),
    )
}
NAMES = tuple(_ALL)
