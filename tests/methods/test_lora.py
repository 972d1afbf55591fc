"""Facts of the LoRA paper; its exchange with PEFT is in unit/test_peft_lora.py."""

import pytest
import torch

from speech_peft.compose.merge import merge
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.lora import Lora
from tests import toy

D, FFN, R = toy.DIM, toy.INNER, 3


def adapted(**settings) -> AdaptedModel:
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Lora(rank=R, **settings)}).eval()
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.normal_(std=0.1)
    return model


def test_it_counts_rank_times_both_widths():
    model = adapted(sites=("*.attn.[qv]", "*.ffn.up"))
    assert count(model.parameters_of("a")) == toy.DEPTH * R * (2 * (D + D) + (D + FFN))


def test_the_default_sites_are_queries_and_values():
    assert [s.name for s in adapted().sites["a"]] == [f"layers.{i}.attn.{n}" for i in range(2) for n in "qv"]


@torch.no_grad()
def test_the_change_is_alpha_over_rank_times_b_a():
    model = adapted(alpha=12)
    site = model.sites["a"][0]
    part, x = model.at("a", site), toy.speech()
    y = model.base.get_submodule(site.exit)(x)
    with model.using():
        frozen = model.base.get_submodule(site.exit)(x)
    assert torch.allclose(y - frozen, 12 / R * x @ part.a.T @ part.b.T, atol=1e-6)


@torch.no_grad()
def test_the_merged_weight_changes_by_rank_r():
    model = adapted(sites=("*.ffn.up",))
    change = merge(model).layers[0].up.weight - model.base.layers[0].up.weight
    assert torch.linalg.matrix_rank(change, atol=1e-5) == R


def test_it_begins_as_pytorchs_linear_and_zero():
    part = Lora(rank=64).build(toy.sites()[5], torch.nn.Identity(), None)
    assert part.a.abs().max() <= toy.DIM**-0.5
    assert part.a.std().item() == pytest.approx(toy.DIM**-0.5 / 3**0.5, rel=0.1)
    assert not part.b.any()


def test_dropout_works_in_training_and_rests_in_evaluation():
    model = adapted(dropout=0.5)
    assert torch.equal(model(toy.speech()), model(toy.speech()))
    model.train()
    assert not torch.equal(model(toy.speech()), model(toy.speech()))


def test_a_site_that_is_no_linear_layer_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"lora cannot sit at layers\.0\.ffn, a site of kind 'ffn'"):
        adapted(sites=("*.ffn",))
