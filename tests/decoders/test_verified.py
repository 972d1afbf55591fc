"""A draft, good or bad, never changes the text: it is the stock greedy one, token for token."""

from contextlib import nullcontext

import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.decoders.diffusion.drafts import MaskedDrafter
from speech_peft.decoders.diffusion.engine import MaskedEngine
from speech_peft.decoders.diffusion.kinds.whisper_masked import WhisperMasked
from speech_peft.decoders.diffusion.sample import Sampling
from speech_peft.decoders.words import search
from speech_peft.decoders.words.verified import Drafts, VerifiedEngine, rest, verify

LIMITS = torch.tensor([30, 17, 14])


@pytest.fixture(scope="module")
def clips():
    """A tiny Whisper whose decoder listens, clips of two lengths in one batch, and what it writes of them."""
    backbone = tiny("whisper", context="fit")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.decoder.parameters():
            parameter.mul_(3.0)
    states, mask = torch.randn(3, 20, 32, generator=generator), torch.ones(3, 20, dtype=torch.bool)
    mask[1, 12:] = False
    prompt = torch.tensor([backbone.generation.prompt()] * 3)
    with torch.inference_mode():
        stock = search.by_reader(backbone, states, mask, prompt, LIMITS)
    return backbone, states, mask, prompt, stock


def same(found, stock):
    assert [one.tokens for one in found] == [one.tokens for one in stock]
    assert [one.stopped for one in found] == [one.stopped for one in stock]
    for one, other in zip(found, stock, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.no_speech == pytest.approx(other.no_speech)


@torch.inference_mode()
def test_whatever_the_draft_the_text_is_the_stock_greedy_one_and_a_better_draft_takes_fewer_passes(clips):
    backbone, *batch, stock = clips
    end, random = backbone.generation.eot, torch.Generator().manual_seed(1)
    right = [[*one.tokens, end] for one in stock]
    drafts = {
        "right": right,
        "one wrong": [[*row[:5], 3, *row[6:]] for row in right],
        "one twice": [[*row[:5], row[4], *row[5:]] for row in right],
        "one missing": [[*row[:5], *row[6:]] for row in right],
        "noise": [torch.randint(0, 99, (n,), generator=random).tolist() for n in (40, 3, 0)],
        "none": [[], [], []],
    }
    passes = {}
    for name, draft in drafts.items():
        verified = verify(backbone, *batch, LIMITS, Drafts(draft, [0] * 3))
        same(verified.found, stock)
        passes[name] = verified.passes
    assert max(passes["right"]) <= 3  # 8, 16 and 32 tokens at once
    assert passes["none"] == [len(one.tokens) + 1 for one in stock]
    assert max(sum(passes["one wrong"]), sum(passes["one twice"])) < sum(passes["none"]) / 2, passes


def test_an_untrained_drafter_costs_passes_and_no_words(clips):
    backbone, states, mask, prompt, stock = clips
    masked = MaskedEngine(backbone, WhisperMasked(backbone), nullcontext, Sampling(steps=1))
    engine = VerifiedEngine(backbone, MaskedDrafter(masked), nullcontext)
    same(engine.find(states, mask, prompt, LIMITS), stock)
    assert all(passes >= 2 for passes in engine.passes)


def test_behind_a_correction_the_draft_goes_on_where_it_has_the_same_word():
    assert rest([1, 2, 2, 3, 4], 2, 3) == [4]  # a word twice
    assert rest([1, 9, 3, 4], 1, 2) == [3, 4]  # another word
    assert rest([1], 1, 5) == []
