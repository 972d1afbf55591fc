"""Words normalised one by one: the same text as the rules give as a whole, and far sooner."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_peft.metrics.english import Mended, whisper
from speech_peft.metrics.word_by_word import WordByWord

RULES = {"whisper-en": WordByWord(whisper(), curly=False), "english": WordByWord(Mended(), curly=True)}
WORDS = (
    *("the", "colour", "It's", "don't", "y'all", "Mr", "st", "party", "and", "a", "half", "been", "got"),
    *("one", "twenty", "o", "o'clock", "clock", "o'ne", "one's", "O'Brien", "point", "minus", "cent"),
    *("mm", "hmm", "um", "um's", "mm's", "'s", "'", "dogs'", "5", "$2", "’s", "naïve", "(x)", "third", "K"),
    *(
        "cat",
        "walked",
        "café",
        "½",
        "ﬁve",
        "$",
        "%",
        "per",
        "1,000",
        "5th",
        "th",
        "[x",
        "y]",
        "¢20",
        "é",
        "ꙮ",
    ),
)
BETWEEN = (" ", " ", " ", ", ", ". ", ".", "..", "-", "", "\n", '"', " '", "\x1c")
texts = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BETWEEN)), max_size=10).map(
    lambda parts: "".join(word + between for word, between in parts)
)


def same(text: str) -> None:
    for rule in RULES.values():
        assert rule(text).split() == rule.whole(text).split()


@settings(max_examples=200, deadline=None)
@given(texts)
def test_words_alone_become_what_they_become_in_a_text(text):
    same(text)


@pytest.mark.parametrize(
    "text",
    [
        *("it um's been", "it's been", "party mm's", "a .um. b", "wait...", "and a half", "o'ne o'ne"),
        *("twenty mm", "one hundred and one", "and and", "five o' clock", "minus one", "dogs' s"),
    ],
)
def test_words_that_depend_on_their_neighbours_are_read_with_them(text):
    same(text)


def test_a_text_of_plain_words_does_not_pass_the_rules_again(monkeypatch):
    text = 'It isn\'t the colour, Mr. Gray: we’re "gonna" go.'
    rule = RULES["english"]
    written = rule(text)
    monkeypatch.setattr(rule, "whole", None)
    assert rule(text) == written == "it is not the color mister gray we are going to go"


def test_only_the_place_of_a_number_passes_the_rules_again(monkeypatch):
    rule = WordByWord(Mended(), curly=True)
    asked = []
    monkeypatch.setattr(rule, "_place", lambda place: asked.append(place) or rule.whole(place))
    text = (
        "We walked for an hour and a half, um, (laughs) past twenty-one small cafés. Señor Gray: it was €5."
    )
    assert rule(text).split() == rule.whole(text).split()
    assert asked == ["hour and a half, um, (laughs) past twenty-one small", "was €5."]


def test_a_long_text_takes_no_longer_than_its_length():
    began = time.process_time()
    assert RULES["english"]("words " * 20_000 + "\u00e9").startswith("words words")
    RULES["english"]("a'b" * 20_000 + "!'")
    assert time.process_time() - began < 10.0
