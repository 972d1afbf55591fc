"""One text of several: what the votes of words give that no candidate has, and what each choice prefers."""

import pytest

from speech_peft.decoders.diffusion.select import SELECTIONS, Candidate, best, rover
from speech_peft.errors import ConfigError


def said(*texts: str, sure: float = 0.5) -> list[Candidate]:
    return [Candidate(tuple(text.split()), sure) for text in texts]


def test_words_are_voted_on_so_the_text_may_be_better_than_every_candidate():
    voted = rover(said("the bat sat", "the cat fat", "a cat sat"))
    assert voted.words == ("the", "cat", "sat")
    assert voted.agreement == pytest.approx((2 / 3,) * 3)


def test_a_word_that_most_do_not_have_is_left_out_and_one_that_most_have_is_put_in():
    assert rover(said("a b b c", "a b c", "a b c")).words == ("a", "b", "c")
    assert rover(said("a c", "a b c", "a b c")).words == ("a", "b", "c")


def test_weights_decide_a_vote():
    assert rover(said("a x", "a y"), [0.9, 0.1]).words == ("a", "x")
    assert rover(said("a x", "a y"), [0.1, 0.9]).words == ("a", "y")


def test_confidence_takes_the_surest_and_mbr_the_most_central():
    candidates = [*said("a b c", "a b d"), *said("q r s", sure=0.9)]
    assert best(candidates, "confidence") == 2
    assert best(candidates, "mbr") in (0, 1)


def test_a_selection_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'mbr'"):
        best(said("a"), "mbrr")
    assert "rover" in SELECTIONS
