"""Facts of norm and bias tuning."""

import pytest
import torch

from speech_peft.compose.merge import merge
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.affine import Affine
from tests import toy


def adapted(method: Affine) -> AdaptedModel:
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": method}).eval()
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.normal_()
    return model


@torch.no_grad()
def test_behind_a_norm_it_trains_the_gain_and_the_bias():
    model = adapted(Affine())
    norm, part = model.base.layers[0].norm_ffn, model.at("a", model.sites["a"][0])
    merged = merge(model).layers[0].norm_ffn
    assert torch.allclose(merged.weight, norm.weight * (1 + part.scale))
    assert torch.allclose(merged.bias, norm.bias * (1 + part.scale) + part.shift)


@torch.no_grad()
def test_without_a_scale_only_biases_move():
    model = adapted(Affine(sites=("*.ffn.*", "*.attn.q"), scale=False))
    stock, merged = model.base.state_dict(), merge(model).state_dict()
    changed = {key for key, value in merged.items() if not torch.equal(value, stock[key])}
    assert changed == {f"layers.{i}.{n}.bias" for i in range(2) for n in ("up", "down", "attn.q")}


@torch.no_grad()
def test_a_layer_without_bias_gets_one_by_merging():
    model = adapted(Affine(sites=("*.attn.k",)))
    merged = merge(model)
    assert merged.layers[0].attn.k.bias is not None
    assert torch.allclose(merged(toy.speech()), model(toy.speech()), atol=1e-5)


def test_it_counts_two_numbers_a_channel():
    assert count(adapted(Affine()).parameters_of("a")) == toy.DEPTH * 2 * toy.DIM


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="nothing would train"):
        Affine(scale=False, shift=False)


@torch.no_grad()
def test_bitfit_moves_every_bias_that_is_there_and_nothing_else():
    model = adapted(Affine(preset="bitfit"))
    stock, merged = model.base.state_dict(), merge(model).state_dict()
    assert set(merged) == set(stock), "a layer without bias got one"
    moved = {key for key, value in merged.items() if not torch.equal(value, stock[key])}
    biases = {key for key in stock if key.endswith(".bias")}
    assert moved == biases - {f"layers.{i}.norm_attn.bias" for i in range(2)}, (
        "norm_attn is no site of the toy"
    )


def test_bitfit_without_a_bias_is_refused_with_a_site():
    with pytest.raises(ConfigError, match=r"none of the chosen sites \(layers\.0\.attn\.k …\) has a bias"):
        adapted(Affine(preset="bitfit", sites=("*.attn.k",)))
