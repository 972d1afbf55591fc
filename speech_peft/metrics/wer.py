"""Word and character errors of one utterance, and their sum over a corpus.

    WER = (S + D + I) / N,    N = H + S + D reference words, all summed over the corpus before dividing

An empty reference is legal: what was said into the silence counts as insertions. Where there is no reference
word at all the rate is None, for no division gives an honest number; the errors are still counted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..writing import without_spaces

Operation = Literal["equal", "substitute", "delete", "insert"]


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
    import jiwer

    if not references:
        return []
    output = jiwer.process_words(
        [_spaced(text) for text in references], [_spaced(text) for text in hypotheses]
    )
    return [
        tuple(pair for chunk in chunks for pair in _pairs(chunk, reference, hypothesis))
        for chunks, reference, hypothesis in zip(
            output.alignments, output.references, output.hypotheses, strict=True
        )
    ]


def count(pairs: Iterable[Pair]) -> Counts:
    """How often each operation occurs in an alignment."""
    seen = Counter(pair.operation for pair in pairs)
    return Counts(seen["equal"], seen["substitute"], seen["delete"], seen["insert"])


def count_characters(reference: str, hypothesis: str) -> Counts:
    """Character errors. A space between words is a character, as in jiwer and the usual toolkits.

    Beside letters of a script that writes no spaces it is none, on either side.
    """
    import jiwer

    said, heard = (without_spaces(_spaced(text)) for text in (reference, hypothesis))
    output = jiwer.process_characters(said, heard)
    return Counts(output.hits, output.substitutions, output.deletions, output.insertions)


def error_pairs(alignments: Iterable[Iterable[Pair]], top: int = 20) -> list[tuple[Pair, int]]:
    """The errors made most often, with how often; ties in alphabetical order."""
    seen = Counter(pair for pairs in alignments for pair in pairs if pair.operation != "equal")
    order = sorted(seen.items(), key=lambda item: (-item[1], item[0].reference, item[0].hypothesis))
    return order[:top]


def _spaced(text: str) -> str:
    return " ".join(text.split())  # jiwer splits at " " only: a tab would glue two words


def _pairs(chunk: Any, reference: list[str], hypothesis: list[str]) -> list[Pair]:
    said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
    heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
    if chunk.type == "delete":
        return [Pair("delete", word, "") for word in said]
    if chunk.type == "insert":
        return [Pair("insert", "", word) for word in heard]
    return [Pair(chunk.type, *words) for words in zip(said, heard, strict=True)]
