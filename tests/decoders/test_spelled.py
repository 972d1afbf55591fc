"""Drafts by letters: the stock greedy text stands, in as many passes as there are words to correct."""

from contextlib import nullcontext

import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.decoders.words import search
from speech_peft.decoders.words.spelled import SpelledDrafter, found_again
from speech_peft.decoders.words.verified import VerifiedEngine


class Spells:
    """A CTC layer whose texts are known."""

    def __init__(self, texts):
        self.texts = texts

    def decode(self, states, mask):
        return self.texts


@torch.inference_mode()
def test_the_text_is_the_stock_one_and_good_letters_take_few_passes():
    backbone = tiny("whisper", context="fit")
    with torch.no_grad():
        for parameter in backbone.decoder.parameters():
            parameter.mul_(3.0)
    states = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(0))
    prompt, limits = torch.tensor([backbone.generation.prompt()] * 2), torch.tensor([24, 12])
    stock = search.by_reader(backbone, states, None, prompt, limits)
    right = [backbone.tokenizer.decode(one.tokens).removeprefix(" ") for one in stock]
    passes = {}
    for name, texts in {"right": right, "none": ["", ""], "noise": ["zxq jk", "a b c d e f"]}.items():
        engine = VerifiedEngine(backbone, SpelledDrafter(backbone, Spells(texts)), nullcontext)
        found = engine.find(states, None, prompt, limits)
        assert [one.tokens for one in found] == [one.tokens for one in stock], name
        passes[name] = sum(engine.passes)
    assert passes["none"] == sum(len(one.tokens) + 1 for one in stock)
    assert passes["right"] < passes["none"] <= passes["noise"] + len(stock)


@pytest.mark.parametrize(
    ("written", "draft", "rest"),
    [
        (" the ferret", " the ferrat is here", " is here"),
        (" I am sure", " I'm sure of it", " of it"),
        (" one two", " one one two three", " three"),
        (" one two three", " one three four", " four"),
    ],
    ids=["another letter", "another word", "a word too much", "a word missing"],
)
def test_the_draft_goes_on_behind_the_letters_that_were_written(written, draft, rest):
    assert draft[found_again(written, draft, len(written)) :] == rest
