"""One text of several candidates: the surest, the most central, or a vote of words.

confidence      the mean probability of its tokens (Whisfusion, arXiv:2508.07048)
mbr             the least expected word errors, the others taken for the truth (v2 of it)
sum             confidence and half of that
rover           candidates are aligned word by word, and words are voted on (Fiscus 1997)
rover-sum       the same, each candidate weighing what `sum` gives it
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from rapidfuzz.distance import Levenshtein

from ...errors import ConfigError, did_you_mean
from .masked import MaskedDecoder
from .sample import Filled

Selection = Literal["confidence", "mbr", "sum", "rover", "rover-sum"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)
_CENTRAL = 0.5  # of the agreement beside the confidence


@dataclass(frozen=True)
class Candidate:
    """A text of a clip, in words, and how sure its decoder was."""

    words: tuple[str, ...]
    confidence: float


@dataclass(frozen=True)
class Voted:
    """Words, and how much of the vote each has: the candidates' agreement."""

    words: tuple[str, ...]
    agreement: tuple[float, ...]


def best(candidates: Sequence[Candidate], selection: Selection) -> int:
    """The place of the candidate that is chosen as it is. Raises ConfigError for no such selection."""
    if selection not in SELECTIONS:
        raise ConfigError(f"selection: there is no {selection!r}. {did_you_mean(selection, SELECTIONS)}")
    sure = [one.confidence for one in candidates]
    if selection == "confidence":
        score = sure
    else:
        central = [-risk for risk in risks(candidates)]
        score = (
            central if selection == "mbr" else [a + _CENTRAL * b for a, b in zip(sure, central, strict=True)]
        )
    return max(range(len(candidates)), key=score.__getitem__)


def risks(candidates: Sequence[Candidate]) -> list[float]:
    """For each candidate the mean word error rate that it has against the others.

    >>> said = [Candidate(tuple(text.split()), 1.0) for text in ("a b c", "a b c", "a x c d")]
    >>> [round(risk, 2) for risk in risks(said)]
    [0.25, 0.25, 0.67]
    """
    found = []
    for i, one in enumerate(candidates):
        others = [other.words for j, other in enumerate(candidates) if j != i]
        rates = [Levenshtein.distance(one.words, other) / max(1, len(other)) for other in others]
        found.append(sum(rates) / max(1, len(rates)))
    return found


def rover(candidates: Sequence[Candidate], weights: Sequence[float] | None = None) -> Voted:
    """Words that win the vote at their place in an alignment of all candidates to the most central one.

    A gap votes too: a word that most do not have is left out.

    >>> said = [Candidate(tuple(text.split()), 1.0) for text in ("a b c", "a x c", "a x c d")]
    >>> rover(said).words
    ('a', 'x', 'c')
    """
    weights = list(weights) if weights is not None else [1.0] * len(candidates)
    central = min(range(len(candidates)), key=risks(candidates).__getitem__)
    order = [central, *(i for i in range(len(candidates)) if i != central)]
    slots: list[dict[str, float]] = []
    given = 0.0
    for i in order:
        slots = _joined(slots, candidates[i].words, weights[i], given)
        given += weights[i]
    words, shares = [], []
    for slot in slots:
        word, votes = max(slot.items(), key=lambda one: one[1])
        if word:
            words.append(word)
            shares.append(votes / given if given else 0.0)
    return Voted(tuple(words), tuple(shares))


def _joined(
    slots: list[dict[str, float]], words: Sequence[str], weight: float, given: float
) -> list[dict[str, float]]:
    """The slots with a further candidate's votes in them; "" is a vote for no word."""
    leading = [max(slot, key=slot.__getitem__) for slot in slots]
    found: list[dict[str, float]] = []
    for step in Levenshtein.opcodes(leading, list(words)):
        old, new = slots[step.src_start : step.src_end], list(words[step.dest_start : step.dest_end])
        for place in range(max(len(old), len(new))):
            slot = defaultdict(float, old[place] if place < len(old) else {"": given})
            slot[new[place] if place < len(new) else ""] += weight
            found.append(dict(slot))
    return found


def chosen(
    decoder: MaskedDecoder, filled: Filled, selection: Selection
) -> list[tuple[list[int], list[float]]]:
    """For each clip the tokens of its text, and how sure each is."""
    found = []
    for tokens, sure in zip(filled.tokens.tolist(), filled.probability.tolist(), strict=True):
        if len(tokens) == 1:
            found.append((tokens[0], sure[0]))
            continue
        candidates = candidates_of(decoder, tokens, sure)
        if not selection.startswith("rover"):
            place = best(candidates, selection)
            found.append((tokens[place], sure[place]))
            continue
        voted = rover(candidates, weights(candidates) if selection == "rover-sum" else None)
        row: list[int] = []
        shares: list[float] = []
        for word, share in zip(voted.words, voted.agreement, strict=True):
            own = decoder.encode(word)
            row += own
            shares += [share] * len(own)
        found.append(([*row, decoder.end], [*shares, 1.0]))
    return found


def candidates_of(
    decoder: MaskedDecoder, tokens: Sequence[Sequence[int]], sure: Sequence[Sequence[float]]
) -> list[Candidate]:
    found = []
    for row, shares in zip(tokens, sure, strict=True):
        count = len(decoder.until_end(row)) + 1
        own = shares[:count]
        found.append(Candidate(tuple(decoder.decode(row).split()), sum(own) / max(1, len(own))))
    return found


def weights(candidates: Sequence[Candidate]) -> list[float]:
    """What each candidate's votes weigh: more, the surer and the more central it is."""
    risk = risks(candidates)
    score = torch.tensor([one.confidence - _CENTRAL * own for one, own in zip(candidates, risk, strict=True)])
    return (score * math.log(len(candidates) + 1) * 4).softmax(0).tolist()
