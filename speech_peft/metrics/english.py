"""English as one would say it: Whisper's EnglishTextNormalizer, and the same with its numbers mended.

Whisper's own (arXiv:2212.04356, appendix C) is what published figures use. It takes "one dollar" and "one
percent" for "one", loses the minus of "-1" and the zeros of "007", drops the "mm" of "20 mm" as a hesitation
and reads "5 o'clock" as 50. `Mended` keeps these apart or brings them together, by rewriting what goes in.
"""

import re
from importlib.resources import files

from transformers.models.whisper.english_normalizer import EnglishNumberNormalizer, EnglishTextNormalizer

_KEPT = "\ua66e"  # before what must pass as it is: a letter that one manuscript of the 15th century has
_AMOUNT = r"\d+(?:[.,]\d+)*"
_NUMBER_ENDS = (
    r"\d|half|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|teen|ty|hundred|thousand"
)
_REWRITTEN = [
    (re.compile(pattern), written)
    for pattern, written in (
        ("[\u2018\u2019\u02bc]", "'"),
        (r"\bo' ?clock\b|\bo clock\b", "oclock"),
        (r"\bo'(?=[a-z])", "o"),
        (r"(?<![\w.,])[-\u2010\u2212](?=[$£€¢]?\.?\d)", "minus "),
        (r"\+(?=[$£€¢]?\.?\d)", " plus "),
        (rf"(?<![\w.])({_AMOUNT})\s*([$£€¢])(?!\d)", r"\2\1"),
        (r"([$£€¢])\s+(?=\d)", r"\1"),
        (r"(?<=\d)\s+%", "%"),
        (r"(?<![\w.])\.(?=\d)", "0."),
        (rf"({_NUMBER_ENDS})\s?mm\b", rf"\1 {_KEPT}mm"),
    )
]


def whisper() -> EnglishTextNormalizer:
    """As OpenAI published it, with its table of spellings."""
    return EnglishTextNormalizer(spellings())


class Mended(EnglishTextNormalizer):
    """Whisper's rules for words, and numbers that keep their units, signs and zeros."""

    def __init__(self) -> None:
        super().__init__(spellings())
        self.standardize_numbers = _Numbers()

    def __call__(self, s: str) -> str:
        text = s.lower().replace(_KEPT, "")
        for pattern, written in _REWRITTEN:
            text = pattern.sub(written, text)
        return super().__call__(text).replace(_KEPT, "")


class _Numbers(EnglishNumberNormalizer):
    """Signs stay words, numbers that begin with 0 stay as they are, and 1 is only written out alone."""

    def __init__(self) -> None:
        super().__init__()
        self.words -= set(self.preceding_prefixers)

    def preprocess(self, s: str) -> str:
        return re.sub(r"(?<![\d.$£€¢])(?=0\d+(?![\d.]))", _KEPT, super().preprocess(s))

    def postprocess(self, s: str) -> str:
        text = re.sub(r"([€£$]\d+) (?:and )?¢(\d{1,2})\b", _with_cents, s)
        text = re.sub(r"[€£$]0\.(\d\d)\b", lambda found: f"¢{int(found[1])}", text)
        text = re.sub(r"(?<!\S)\.(?=\d)", "0.", text)
        return re.sub(r"(?<!\S)1(s?)(?!\S)", r"one\1", text)


def _with_cents(found: re.Match[str]) -> str:
    return f"{found[1]}.{int(found[2]):02d}"


def spellings() -> dict[str, str]:
    """British to American."""
    text = (files("speech_peft.metrics") / "english_spellings.txt").read_text(encoding="utf-8")
    return dict(line.split() for line in text.splitlines() if not line.startswith("#"))
