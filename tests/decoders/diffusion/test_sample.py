"""How texts are filled: in how many passes, in which order, each clip and candidate for itself."""

import pytest
import torch

from speech_peft.decoders.diffusion.reveal import POLICIES, Guess
from speech_peft.decoders.diffusion.sample import Sampling, falling, fill, fill_bucket, masks
from tests.decoders.diffusion.fakes import END, Reads, clips

SAID = ([5, 6, 7], [9, 8, 7, 6, 5], list(range(1, 21)))


def heard(filled) -> list[list[int]]:
    return [row[: row.index(END)] for row in filled.tokens[:, 0].tolist()]


@pytest.mark.parametrize("policy", [*POLICIES, "random"])
def test_every_policy_writes_what_a_sure_decoder_hears_each_clip_in_a_bucket_of_its_own(policy):
    decoder = Reads()
    filled = fill(decoder, decoder.memory(clips(*SAID)), [16, 16, 32], Sampling(policy))
    assert heard(filled) == list(SAID)


def test_a_text_that_does_not_end_in_its_bucket_is_given_twice_as_much():
    decoder = Reads()
    filled = fill(decoder, decoder.memory(clips(*SAID)), [16, 16, 16], Sampling("confidence", steps=2))
    assert heard(filled) == list(SAID)
    assert filled.passes.tolist()[2] > filled.passes.tolist()[0]


def test_confidence_is_whole_after_its_steps_and_entropy_never_takes_more():
    decoder = Reads()
    memory = decoder.memory(clips(*SAID))
    for policy in POLICIES:
        filled = fill_bucket(decoder, memory, 32, Sampling(policy, steps=4))
        assert int(filled.passes.max()) <= 4
        assert heard(filled) == list(SAID)


def test_what_was_misread_beside_a_gap_is_corrected_once_the_gap_is_filled_but_only_where_asked_for():
    decoder = Reads(wrong=(2,))
    memory = decoder.memory(clips(SAID[0]))
    at_once = Sampling("entropy", bound=1e6, bias=0.0)
    assert heard(fill_bucket(decoder, memory, 16, at_once)) == [[5, 6, 29]]
    again = Sampling("entropy", bound=1e6, bias=0.0, corrects=True)
    assert heard(fill_bucket(decoder, memory, 16, again)) == [[5, 6, 7]]
    decoder.corrects = True  # as one that was trained on it
    assert heard(fill_bucket(decoder, memory, 16, at_once)) == [[5, 6, 7]]


def test_entropies_of_a_pass_stay_under_the_bound_but_for_the_largest():
    entropy, masked = torch.tensor([[0.01, 0.05, 0.05, 3.0]]), torch.ones(1, 4, dtype=torch.bool)
    guess = Guess(1 - entropy / 4, entropy, masked, ~masked, left=9, bound=0.07)
    assert POLICIES["entropy"](guess).tolist() == [[True, True, True, False]]


def test_a_bias_fills_from_the_left_what_is_equally_sure():
    masked = torch.ones(1, 4, dtype=torch.bool)
    guess = Guess(torch.full((1, 4), 0.5), torch.ones(1, 4), masked, ~masked, 4, bias=1.0)
    assert POLICIES["confidence"](guess).tolist() == [[True, False, False, False]]


def test_ends_that_fill_the_bucket_hurry_nobody_but_the_last_pass_leaves_nothing():
    masked = torch.ones(1, 16, dtype=torch.bool)
    ends = torch.arange(16)[None] >= 4
    assert Guess(torch.rand(1, 16), torch.ones(1, 16), masked, ends, left=4).least.tolist() == [1]
    assert Guess(torch.rand(1, 16), torch.ones(1, 16), masked, ends, left=1).least.tolist() == [16]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_pass_is_spent_on_text_however_much_surer_the_ends_are(policy):
    masked, ends = torch.ones(1, 16, dtype=torch.bool), torch.arange(16)[None] >= 4
    probability = torch.where(ends, 0.99, 0.5)
    found = POLICIES[policy](Guess(probability, 1 - probability, masked, ends, left=2, bound=0.0))
    assert found.tolist() == [[True, True] + 14 * [False]]


def test_candidates_are_one_row_until_they_branch_and_every_clip_is_filled_as_if_alone():
    decoder, sampling = (
        Reads(wrong=(1, 3, 4)),
        Sampling("random", candidates=4, ratios=(1.0, 0.6, 0.4), seed=3),
    )
    memory = decoder.memory(clips(*SAID[:2]))
    together = fill_bucket(decoder, memory, 16, sampling)
    assert [rows for rows, _ in decoder.calls] == [2, 8, 8]
    assert together.row_passes == 18
    for i, said in enumerate(SAID[:2]):
        alone = fill_bucket(decoder, decoder.memory(clips(said)), 16, sampling)
        assert torch.equal(together.tokens[i], alone.tokens[0])


def test_a_tree_of_candidates_takes_fewer_rows_and_gives_as_many_texts():
    decoder = Reads(wrong=(1,))
    memory = decoder.memory(clips(SAID[1]))
    tree = Sampling("random", candidates=8, ratios=falling(3), branches=(1, 2, 8))
    filled = fill_bucket(decoder, memory, 16, tree)
    assert filled.row_passes == 11
    assert filled.tokens.shape == (1, 8, 16)


def test_masks_of_a_candidate_are_the_same_however_many_there_are():
    few, many = masks(1, 2, 16, 0.5, 0, 1), masks(3, 8, 16, 0.5, 0, 1)
    assert torch.equal(few[0], many[2, :2])
    assert not torch.equal(many[0, 0], many[0, 1])
