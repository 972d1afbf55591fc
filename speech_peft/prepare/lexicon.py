"""Carrier sentences: a phrase said in many sentences, so that it is learned and not what stands around it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..files import text

CARRIERS = (
    "{}.",
    "{}?",
    "{}, please.",
    "What about {}?",
    "I said {}.",
    "Did you say {}?",
    "No, not {}.",
    "This is about {}.",
    "Tell me more about {}.",
    "She was talking about {} again.",
    "I have never heard of {}.",
    "Who told you about {}?",
    "There is something else about {} that you should know.",
    "First {}, then the rest.",
    "It begins with {} and it ends with {}.",
    "{} and {}, in that order.",
    "We were looking for {} all day.",
    "{} was the first thing on the list.",
    "You can ask for {} at the door.",
    "Nobody here has seen {} since last week.",
    "Write down {}, and then {}.",
    "They wanted {}, but we had only {}.",
    "Where is {} now?",
    "Well, {} is what it says here.",
    "If it is not {}, it must be {}.",
    "He keeps on asking about {}.",
    "The next one is {}.",
    "Everybody knows {}, of course.",
    "Why would anyone want {}?",
    "Let me spell that for you: {}.",
    "All right, {} it is.",
    "I think it was {} or {}.",
    "Thank you for {}.",
    "Have you got {}?",
    "I don't believe a word about {}.",
    "Now we come to {}.",
    "Look at {}!",
    "Hey, {}!",
    "Press one for {}, or two for {}.",
    "You have reached {}.",
)
"""English sentences in which a name, a thing or an act can stand; some hold two phrases."""
BLANK = "{}"
MOST_BYTES = 100_000_000
"""Of a text; a novel has one million."""


@dataclass(frozen=True)
class Said:
    """A sentence as it is written and as it is spoken, and the phrases of the lexicon in it."""

    text: str
    sound: str
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phrase:
    """A word or several, and the ways in which it is to be read; by default as it is written."""

    text: str
    sounds: tuple[str, ...]


def read_phrases(path: Path) -> list[Phrase]:
    """The phrases of a word list: one a line, or several with commas; `#` begins a remark.

    A line `phrase = one way | another` says how the phrase is to be read, where an engine would read it
    otherwise: `Floda = Flow-da`. Raises ConfigError where there is none.
    """
    found: dict[str, Phrase] = {}
    for line in text.read(path, MOST_BYTES).splitlines():
        said, _, ways = line.partition("#")[0].partition("=")
        sounds = tuple(" ".join(way.split()) for way in ways.split("|") if way.strip())
        for phrase in [said] if sounds else said.split(","):
            if re.search(r"\w", phrase):
                name = " ".join(phrase.split())
                found.setdefault(name, Phrase(name, sounds or (name,)))
    if not found:
        raise ConfigError(f"{path}: holds no word; give one a line")
    return list(found.values())


def read_carriers(path: Path) -> list[str]:
    """Carrier sentences of one's own, one a line. Raises ConfigError where one has no place for a phrase."""
    carriers = [line.strip() for line in text.read(path, MOST_BYTES).splitlines() if line.strip()]
    if wrong := [carrier for carrier in carriers if BLANK not in carrier]:
        raise ConfigError(f"{path}: {wrong[0]!r} has no {BLANK} where the phrase goes")
    if not carriers:
        raise ConfigError(f"{path}: holds no sentence; give one a line, with {BLANK} where the phrase goes")
    return carriers


def read_sentences(path: Path) -> list[Said]:
    """The sentences of a text file, each said as it is written. Raises ConfigError where there is none."""
    if found := sentences(text.read(path, MOST_BYTES)):
        return [Said(sentence, sentence) for sentence in found]
    raise ConfigError(f"{path}: holds no sentence")


def carried(
    phrases: Sequence[Phrase], each: int, seed: int, carriers: Sequence[str] = CARRIERS
) -> Iterator[Said]:
    """Every phrase `each` times or more, in carriers that differ.

    Where a carrier holds several phrases, the others are any of the list.
    """
    generator = np.random.default_rng(seed)
    for phrase in phrases:
        order = generator.permutation(len(carriers))
        for time in range(each):
            carrier = carriers[int(order[time % len(carriers)])]
            others = generator.integers(len(phrases), size=carrier.count(BLANK) - 1)
            held = [phrase, *(phrases[other] for other in others)]
            held = [held[place] for place in generator.permutation(len(held))]
            sounds = [one.sounds[generator.integers(len(one.sounds))] for one in held]
            texts = tuple(one.text for one in held)
            yield Said(filled(carrier, texts), filled(carrier, sounds), texts)


def filled(carrier: str, phrases: Sequence[str]) -> str:
    """The sentence of a carrier; its first letter is a capital.

    >>> filled("{} and {}.", ["pound key", "Asterisk"])
    'Pound key and Asterisk.'
    """
    parts = carrier.split(BLANK)
    sentence = "".join(part + phrase for part, phrase in zip(parts, [*phrases, ""], strict=True))
    return sentence[:1].upper() + sentence[1:]


def sentences(written: str, longest: int = 300) -> list[str]:
    """The sentences of a text, by lines and punctuation; long ones are cut at commas, else between words."""
    found: list[str] = []
    for line in written.splitlines():
        for sentence in re.split(r"(?<=[.!?…])[\"”’)]*\s+(?=\S)", line.strip()):
            found += _cut(sentence.strip(), longest)
    return [sentence for sentence in found if re.search(r"\w", sentence)]


def _cut(sentence: str, longest: int) -> Iterator[str]:
    while len(sentence) > longest:
        head = sentence[:longest]
        at = max(head.rfind(mark) for mark in (", ", "; ", ": "))
        at = at + 1 if at > longest // 3 else head.rfind(" ") if " " in head else longest
        yield sentence[:at].strip()
        sentence = sentence[at:].strip()
    if sentence:
        yield sentence
