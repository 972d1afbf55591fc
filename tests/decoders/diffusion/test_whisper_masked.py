"""Whisper's decoder that sees both sides, and the stock one that stays what it was."""

import pytest
import torch

import speech_peft as sp
from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.decoders.diffusion.kinds.whisper_masked import WhisperMasked
from speech_peft.decoders.diffusion.training.corrupt import mask, onward, own_fill, ratios
from speech_peft.decoders.diffusion.training.objective import Objective
from speech_peft.decoders.words.whisper_text import greedy
from tests.decoders.diffusion.fakes import Reads, clips


@pytest.fixture(scope="module")
def backbone():
    return tiny("whisper", context="fit")


@pytest.fixture(scope="module")
def decoder(backbone):
    return WhisperMasked(backbone).eval()


@torch.no_grad()
def test_every_place_depends_on_later_ones_and_on_the_sound(decoder):
    tokens, masked = torch.randint(0, 50, (1, 16)), torch.zeros(1, 16, dtype=torch.bool)
    states, other = torch.randn(2, 1, 12, 32)
    before = decoder(tokens, masked, decoder.memory(states))
    tokens[0, -1] += 1
    assert (decoder(tokens, masked, decoder.memory(states)) - before).abs().amax(-1).min() > 0
    assert (decoder(tokens, masked, decoder.memory(other)) - before).abs().max() > 1e-3


@torch.no_grad()
def test_texts_of_a_clip_share_its_memory_and_know_nothing_of_each_other_or_of_padding(decoder):
    tokens, masked = torch.randint(0, 50, (6, 16)), torch.rand(6, 16) < 0.5
    states, heard = torch.randn(2, 12, 32), torch.ones(2, 12, dtype=torch.bool)
    heard[1, 7:] = False
    together = decoder(tokens, masked, decoder.memory(states, heard))
    for i in range(6):
        own = states[i // 3 : i // 3 + 1, : 12 if i < 3 else 7]
        alone = decoder(tokens[i : i + 1], masked[i : i + 1], decoder.memory(own))
        torch.testing.assert_close(together[i : i + 1], alone)


def test_a_token_under_a_mask_is_not_seen(decoder):
    tokens, masked = torch.randint(0, 50, (1, 16)), torch.zeros(1, 16, dtype=torch.bool)
    masked[0, 3] = True
    memory = decoder.memory(torch.randn(1, 5, 32))
    before = decoder(tokens, masked, memory)
    tokens[0, 3] += 1
    assert torch.equal(decoder(tokens, masked, memory), before)


@torch.no_grad()
def test_behind_a_whole_beginning_it_is_the_stock_decoder_as_long_as_the_right_is_not_looked_at(backbone):
    decoder = WhisperMasked(backbone).eval()
    decoder.right.fill_(-1e3)
    states, tokens = torch.randn(1, 12, 32), torch.randint(0, 50, (1, 16))
    memory = decoder.memory(states)
    known = decoder(tokens, torch.arange(16)[None] >= 5, memory)[0, :6]
    stock = backbone.decoder(
        input_ids=torch.cat([memory.prompt, tokens[:, :5]], 1), encoder_hidden_states=states, use_cache=False
    )
    wanted = backbone.module.proj_out(stock.last_hidden_state[0, memory.prompt.shape[1] - 1 :])
    torch.testing.assert_close(known, wanted)


@torch.no_grad()
def test_how_many_masks_follow_changes_nothing(decoder):
    tokens, masked = torch.randint(0, 50, (1, 32)), torch.arange(32)[None] >= 7
    memory = decoder.memory(torch.randn(1, 12, 32))
    long, short = (decoder(tokens[:, :n], masked[:, :n], memory) for n in (32, 16))
    torch.testing.assert_close(long[:, :16], short)


def test_a_copy_trains_and_the_stock_decoder_writes_bit_for_bit_what_it_wrote(backbone):
    states = torch.randn(2, 12, 32)
    before = greedy(backbone, states)
    decoder = WhisperMasked(backbone)
    loss, *_ = Objective().loss(
        decoder, decoder.rows(["one two", "three"]), decoder.memory(states), torch.Generator().manual_seed(0)
    )
    loss.backward()
    assert all(p.grad is not None for p in decoder.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in backbone.module.parameters())
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.sub_(parameter.grad)
    assert greedy(backbone, states) == before


@pytest.mark.parametrize(
    "sites", [("decoder.layers.*.attn.[qkvo]", "decoder.layers.*.cross.[kv]"), ("decoder.layers.*.ffn.*",)]
)
def test_adapters_at_the_decoders_sites_change_the_masked_decoder_and_detached_leave_the_stock_one(sites):
    backbone = tiny("whisper", context="fit")
    states, tokens, masked = torch.randn(1, 9, 32), torch.randint(0, 50, (1, 16)), torch.rand(1, 16) < 0.5
    stock = greedy(backbone, states)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": sp.Lora(rank=2, sites=sites)})
    decoder = WhisperMasked(backbone, own=False)
    fresh = decoder(tokens, masked, decoder.memory(states))
    for parameter in model.parameters_of("a"):
        torch.nn.init.normal_(parameter, std=0.3)
    loss = decoder(tokens, masked, decoder.memory(states))
    assert (loss - fresh).abs().max() > 1e-3
    loss.sum().backward()
    assert all(p.grad is not None for p in model.parameters_of("a"))
    with model.using():
        assert greedy(backbone, states) == stock
    model.detach()
    assert greedy(backbone, states) == stock
    assert {name for name, _ in decoder.named_parameters()} == {"mask_embedding", "right"}


def test_half_of_the_texts_are_masked_at_any_ratio_and_half_at_a_high_one():
    drawn = ratios(20_000, torch.Generator().manual_seed(0), high=0.7, share=0.5)
    assert drawn.mean() == pytest.approx((0.5 + 0.85) / 2, abs=0.01)
    assert (drawn < 0.7).float().mean() == pytest.approx(0.35, abs=0.01)


def test_one_place_at_least_is_masked_and_what_the_decoder_filled_in_is_still_to_be_told():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 9, (4, 16))
    assert mask(tokens, torch.zeros(4), generator).masked.sum(1).tolist() == [1] * 4
    decoder = Reads(wrong=(2,))
    said = [[5, 6, 7, 8]]
    rows = decoder.rows(["5 6 7 8"])
    seen = mask(rows, torch.ones(1), generator)
    half = own_fill(decoder, seen, decoder.memory(clips(*said)), torch.tensor([0.5]))
    assert half.masked.sum() == 8
    assert torch.equal(half.wanted, seen.masked)
    assert half.tokens[0, :4].tolist() == [5, 6, 29, 8]  # the surest come first, a wrong one among them


def test_texts_that_are_masked_onward_are_whole_before_a_place_of_their_own():
    tokens = torch.full((4_000, 16), 9)
    tokens[:, 10:] = 3
    generator = torch.Generator().manual_seed(0)
    seen = onward(mask(tokens, torch.ones(len(tokens)), generator), 3, 0.5, generator)
    begins = seen.masked.int().argmax(1)
    assert seen.masked[:, 10:].all()
    assert (seen.masked.int().diff(dim=1) >= 0).all()  # nothing whole behind what is masked
    assert torch.equal(seen.masked, seen.wanted)
    share = torch.bincount(begins, minlength=16) / len(tokens)
    assert share[0] == pytest.approx(0.5 + 0.5 / 11, abs=0.03)  # not chosen, or from the first place on
    assert share[1:11].tolist() == pytest.approx([0.5 / 11] * 10, abs=0.02)
    assert share[11:].sum() == 0


def test_ends_behind_the_first_weigh_what_they_are_told_to():
    decoder, generator = Reads(), torch.Generator()
    memory, rows = decoder.memory(clips([5])), decoder.rows(["5"])
    weights = [
        Objective(high=1.0, high_share=1.0, ends=w).loss(decoder, rows, memory, generator)[1]
        for w in (1.0, 0.0)
    ]
    assert weights == [16.0, 2.0]
