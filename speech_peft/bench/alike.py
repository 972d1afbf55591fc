"""Test texts that an adapter has nearly read in training: 80 % of the words are the same.

Sharing words is no leak by itself, as prompts and commands recur; so such rows are counted and shown, and
nobody is refused for them.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

SHARE = 0.8
"""Of the words of the longer text."""


def near_duplicates(seen: Iterable[str], texts: Sequence[str]) -> list[int]:
    """The places of those `texts` that share so many of their words with one of `seen`, in any order.

    >>> near_duplicates(["please leave your message now"], ["Leave your message, please!", "hello"])
    [0]
    """
    read = [_words(text) for text in dict.fromkeys(seen)]
    common = Counter(word for words in read for word in words)
    holders: dict[str, list[int]] = defaultdict(list)
    for place, words in enumerate(read):
        for word in words:
            holders[word].append(place)
    return [
        place
        for place, text in enumerate(texts)
        if (words := _words(text)) and any(_alike(words, read[at]) for at in _near(words, common, holders))
    ]


def _near(words: Counter[str], common: Counter[str], holders: dict[str, list[int]]) -> Iterator[int]:
    """Every text that may be alike: it must hold one of the rarest words, as so few may be missing."""
    spare = words.total() - math.ceil(SHARE * words.total())
    met: set[int] = set()
    for word in sorted(words, key=lambda word: common[word]):
        for at in holders.get(word, ()):
            if at not in met:
                met.add(at)
                yield at
        spare -= words[word]
        if spare < 0:
            return


def _alike(words: Counter[str], other: Counter[str]) -> bool:
    return (words & other).total() >= SHARE * max(words.total(), other.total())


def _words(text: str) -> Counter[str]:
    return Counter("".join(c if c.isalnum() or c == "'" else " " for c in text.casefold()).split())
