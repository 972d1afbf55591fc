"""Which adapters of a catalogue suit a request, and how much of each (after Stylus, Luo et al. 2024,
arXiv:2404.18928).

    retrieve    by words: what share of what is asked, weighed by how few cards say it, the card says too
                by sound: how far the clip is from the card's clips, in the frozen encoder's pooled states
                (`likeness.py`)
    compose     the best one, and for what it does not cover others, one for each facet that is left
    weigh       as each card recommends; of several, 0.8 of it each, and no more than 1.5 in sum
    abstain     where less than half of what was asked is covered, or the clip lies far outside of all

Nothing is learned, and no other model is asked: words are matched as they are spelled, languages by code and
by name. An adapter of other weights is never offered.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from .card import FACETS
from .catalogue import Catalogue, Entry

COVERED = 0.5
"""Of what is asked for in words, at least."""
OUTSIDE = 1.6
"""How many times as far as a card's own clips are on the mean a clip may be away; nine of ten that suit are
nearer."""
EACH, CAP = 0.8, 1.5
"""Of several adapters, the share of its weight that each gets, and the most that all have in sum."""
MOST = 3
"""Adapters at once."""
_ALIKE = 80.0  # rapidfuzz's ratio of two words that are taken for one: "telefone", "telephone"
_IDLE = frozenset(
    {
        *("a", "an", "and", "at", "by", "for", "from", "in", "into", "is", "me", "my", "of", "on", "or"),
        *("please", "recorded", "recording", "the", "to", "with"),
    }
)


@dataclass(frozen=True)
class Request:
    """What an adapter is wanted for: words, a sound, or both."""

    words: str = ""
    sound: Float[ndarray, " k"] | None = None
    """Pooled states of the clip, as cards have them."""


@dataclass(frozen=True)
class Found:
    """An adapter that was looked at, and how well it suits."""

    entry: Entry
    words: float | None = None
    """The share of what was asked that its card says."""
    distance: float | None = None
    """Of the clip from its clips: 1 is as far as they are on the mean."""
    rank_distance: float = 0.0
    """The same in a measure that all cards share, by which they are compared."""

    @property
    def suits(self) -> bool:
        words = self.words is None or self.words >= COVERED
        return words and (self.distance is None or self.distance <= OUTSIDE)

    @property
    def why(self) -> str:
        parts = []
        if self.words is not None:
            parts.append(f"its card says {self.words:.0%} of what was asked")
        if self.distance is not None:
            parts.append(f"the sound is {self.distance:.2f} times as far as its own")
        return ", ".join(parts)


@dataclass(frozen=True)
class Selection:
    """What is taken, and why; nothing where nothing suits."""

    factors: Mapping[str, float]
    """By the names of entries."""
    why: str


def search(catalogue: Catalogue, request: Request, k: int | None = None) -> list[Found]:
    """The k adapters that suit best, the best first: by words, then by sound; alone by either where the other
    is not asked for."""
    asked = terms(request.words)
    known = [terms(entry.card.text) | _languages(entry) for entry in catalogue.entries]
    rare = {word: _rarity(word, known) for word in asked}
    found = []
    for entry, words in zip(catalogue.entries, known, strict=True):
        said = _covered(asked, words, rare) if asked else None
        found.append(_found(catalogue, entry, said, request.sound))
    found.sort(key=lambda one: (-round(one.words or 0.0, 3), one.rank_distance, one.entry.name))
    return found[:k]


def select(catalogue: Catalogue, request: Request, most: int = MOST) -> Selection:
    """What of a catalogue to use for a request."""
    if not catalogue.entries:
        return Selection({}, "the catalogue has nothing for this base")
    ranked = search(catalogue, request)
    best = ranked[0]
    if not best.suits:
        return Selection({}, f"nothing suits: of the nearest, {best.entry.name}, {best.why}")
    chosen = [best]
    left = {word for word in terms(request.words) if not _said(word, _words(best.entry))}
    for other in ranked[1:]:
        more = {word for word in left if _said(word, _words(other.entry))}
        if len(chosen) < most and more and _facet(other.entry, more) is not None:
            chosen.append(other)
            left -= more
    whys = [one.why for one in chosen] if len(chosen) == 1 else [f"{o.entry.name}: {o.why}" for o in chosen]
    return Selection(_weighed(chosen), "; ".join(whys))


def _found(
    catalogue: Catalogue, entry: Entry, said: float | None, sound: Float[ndarray, " k"] | None
) -> Found:
    """How an adapter suits; without a card of its sound it suits no sound, unless words say that it does."""
    if sound is None:
        return Found(entry, said)
    own, measure = entry.card.sound, catalogue.likeness
    if own is None or measure is None or not len(own.mean) == measure.width == len(sound):
        return Found(entry, said, math.inf if said is None else None, math.inf)
    between = measure.between(sound, own)
    return Found(entry, said, between / measure.within(own), between)


def terms(text: str) -> set[str]:
    """The words that say something, and of a language its code for its name.

    >>> sorted(terms("Czech, recorded by telephone"))
    ['cs', 'telephone']
    """
    words = {word for word in re.findall(r"[^\W_]+", text.lower()) if word not in _IDLE}
    codes = _codes()
    return {codes.get(word, word) for word in words}


def _codes() -> Mapping[str, str]:
    """Names of languages in English, with their codes."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return TO_LANGUAGE_CODE


def _languages(entry: Entry) -> set[str]:
    return {tag.split("-")[0].lower() for tag in entry.card.language}


def _words(entry: Entry) -> set[str]:
    return terms(entry.card.text) | _languages(entry)


def _said(word: str, words: set[str]) -> bool:
    """Whether one of the words is this one, or is spelled nearly so; codes are what they are."""
    from rapidfuzz import fuzz

    if word in words:
        return True
    return len(word) > 4 and any(len(w) > 4 and fuzz.ratio(word, w) >= _ALIKE for w in words)


def _rarity(word: str, known: Sequence[set[str]]) -> float:
    """log((1 + n) / (1 + cards that say it)) + 1, as TF-IDF has it: what no card says counts most."""
    return math.log((1 + len(known)) / (1 + sum(_said(word, words) for words in known))) + 1


def _covered(asked: set[str], words: set[str], rare: Mapping[str, float]) -> float:
    return sum(rare[word] for word in asked if _said(word, words)) / sum(rare[word] for word in asked)


def _facet(entry: Entry, words: set[str]) -> str | None:
    """Which facet of a card says one of these words."""
    for facet in FACETS:
        own = terms(" ".join(getattr(entry.card, facet)))
        own |= _languages(entry) if facet == "language" else set()
        if any(_said(word, own) for word in words):
            return facet
    return None


def _weighed(chosen: Sequence[Found]) -> dict[str, float]:
    share = EACH if len(chosen) > 1 else 1.0
    factors = {one.entry.name: share * one.entry.card.weight for one in chosen}
    total = sum(factors.values())
    return {name: factor * min(1.0, CAP / total) for name, factor in factors.items()}
