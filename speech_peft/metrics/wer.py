"""Word and character errors of one utterance, and their sum over a corpus.

    WER = (S + D + I) / N,    N = H + S + D reference words, all summed over the corpus before dividing

An empty reference is legal: what was said into the silence counts as insertions. Where there is no reference
word at all the rate is None, for no division gives an honest number; the errors are still counted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from .writing import without_spaces

Operation = Literal["equal", "substitute", "delete", "insert"]
_NAMES: dict[str, Operation] = {"equal": "equal", "replace": "substitute"}


@dataclass(frozen=True)
class Counts:
    """Hits, substitutions, deletions and insertions; they add up.

    >>> Counts(8, 1, 1, 0) + Counts(hits=10)
    Counts(hits=18, substitutions=1, deletions=1, insertions=0)
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference(self) -> int:
        """Words (or characters) in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per reference word; None when there is none."""
        return self.errors / self.reference if self.reference else None


@dataclass(frozen=True)
class Pair:
    """One step of an alignment: a reference word and what was heard; one of them empty unless both spoke."""

    operation: Operation
    reference: str
    hypothesis: str


def corpus(counts: Iterable[Counts]) -> Counts:
    """The sum; its `rate` is the corpus error rate, not the mean of the files' rates."""
    return sum(counts, Counts())


def align_words(references: Sequence[str], hypotheses: Sequence[str]) -> list[tuple[Pair, ...]]:
    """The cheapest alignment of each pair of texts, word by word.

    >>> [(pair.operation, pair.reference, pair.hypothesis) for pair in align_words(["a b"], ["a c d"])[0]]
    [('equal', 'a', 'a'), ('insert', '', 'c'), ('substitute', 'b', 'd')]
    """
    made: dict[tuple[Operation, str, str], Pair] = {}  # words repeat: each pair of them is held once
    return [
        _aligned(said.split(), heard.split(), made)
        for said, heard in zip(references, hypotheses, strict=True)
    ]


def _aligned(
    said: list[str], heard: list[str], made: dict[tuple[Operation, str, str], Pair]
) -> tuple[Pair, ...]:
    steps: list[tuple[Any, str, str]] = []
    for operation, said_from, said_to, heard_from, heard_to in _opcodes(said, heard):
        if operation == "delete":
            steps += [("delete", word, "") for word in said[said_from:said_to]]
        elif operation == "insert":
            steps += [("insert", "", word) for word in heard[heard_from:heard_to]]
        else:
            both = zip(said[said_from:said_to], heard[heard_from:heard_to], strict=True)
            steps += [(_NAMES[operation], *words) for words in both]
    return tuple(made.get(step) or made.setdefault(step, Pair(*step)) for step in steps)


def count_words(reference: str, hypothesis: str) -> Counts:
    """The operations of the alignment of two texts, without the alignment."""
    return _counted(reference.split(), hypothesis.split())


def _opcodes(said: Sequence[str], heard: Sequence[str]) -> Iterable[tuple[str, int, int, int, int]]:
    """The cheapest edits, as jiwer finds them: it asks the same function, about numbers in place of words.

    So do we: words themselves would be compared by their hashes alone.
    """
    if said == heard:
        return [("equal", 0, len(said), 0, len(heard))]
    from rapidfuzz.distance import Levenshtein

    sides: Any = (said, heard)
    if isinstance(said, list):
        numbers: dict[str, int] = {}
        sides = [[numbers.setdefault(word, len(numbers)) for word in words] for words in sides]
    return cast(Any, Levenshtein.opcodes(*sides).as_list())


def _counted(said: Sequence[str], heard: Sequence[str]) -> Counts:
    seen: Counter[str] = Counter()
    for operation, said_from, said_to, heard_from, heard_to in _opcodes(said, heard):
        seen[operation] += max(said_to - said_from, heard_to - heard_from)
    return Counts(seen["equal"], seen["replace"], seen["delete"], seen["insert"])


def count(pairs: Iterable[Pair]) -> Counts:
    """How often each operation occurs in an alignment."""
    seen = Counter(pair.operation for pair in pairs)
    return Counts(seen["equal"], seen["substitute"], seen["delete"], seen["insert"])


def count_characters(reference: str, hypothesis: str) -> Counts:
    """Character errors. A space between words is a character, as in jiwer and the usual toolkits.

    Beside letters of a script that writes no spaces it is none, on either side.
    """
    said, heard = (without_spaces(_spaced(text)) for text in (reference, hypothesis))
    return _counted(said, heard)


def error_pairs(alignments: Iterable[Iterable[Pair]], top: int = 20) -> list[tuple[Pair, int]]:
    """The errors made most often, with how often; ties in alphabetical order."""
    seen = Counter(pair for pairs in alignments for pair in pairs if pair.operation != "equal")
    order = sorted(seen.items(), key=lambda item: (-item[1], item[0].reference, item[0].hypothesis))
    return order[:top]


def _spaced(text: str) -> str:
    return " ".join(text.split())
