"""Merging several adapters, in any order, into a stock model."""

from itertools import permutations

import pytest
import torch
from torch import nn

from speech_peft.compose.merge import merge, merge_sharing
from speech_peft.core.adapter import NotMergeable
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.methods.affine import Affine
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.lora import Lora
from tests import toy

AT = ("*.ffn.up",)
LINEAR = {"activation": "identity", "width": 4, "sites": AT, "bias": True}
METHODS = {
    "low": Lora(sites=AT),
    "front": Bottleneck(preset="llm_series_input", **LINEAR),
    "early": Bottleneck(preset="llm_series_input", **LINEAR),
    "back": Bottleneck(preset="llm_series_output", **LINEAR),
    "gain": Affine(sites=AT),
}


def adapted() -> AdaptedModel:
    model = AdaptedModel(toy.toy(), toy.sites(), METHODS).eval()
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(std=0.2)
    return model


@torch.no_grad()
@pytest.mark.parametrize("order", list(permutations(METHODS, 3)), ids=" ".join)
def test_adapters_of_one_layer_merge_as_they_run(order):
    model = adapted()
    model.activate(*order)
    assert torch.allclose(merge(model)(toy.speech()), model(toy.speech()), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_only_the_named_adapters_are_merged():
    model = adapted()
    with model.using("gain"):
        assert torch.allclose(merge(model, "gain")(toy.speech()), model(toy.speech()), atol=1e-5)


def test_the_merged_copy_is_stock_and_the_model_untouched():
    model = adapted()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    merged = merge(model)
    assert type(merged) is toy.Toy
    assert list(merged.state_dict()) == list(toy.toy().state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in merged.modules())
    assert not any(p.requires_grad for p in merged.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_merged_model_that_is_only_read_shares_what_no_adapter_changed_and_changes_nothing():
    model = adapted()
    before = {key: value.clone() for key, value in model.base.state_dict().items()}
    shared, copied = merge_sharing(model, "low"), merge(model, "low")
    own = dict(model.base.named_parameters())
    for key, value in shared.named_parameters():
        assert value.equal(dict(copied.named_parameters())[key]), key
        assert (value is own[key]) == (".up." not in key), key
    assert not [key for key, value in model.base.state_dict().items() if not value.equal(before[key])]


def test_merging_into_bfloat16_rounds_once():
    model = AdaptedModel(toy.toy().bfloat16(), toy.sites(), {"a": Lora(sites=AT), "b": Lora(sites=AT)})
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(std=0.01)
    site = model.sites["a"][0]
    exact = model.base.layers[0].up.weight.double()
    for name in ("a", "b"):
        part = model.at(name, site).double()
        exact = exact + part.scale * part.b @ part.a
    assert torch.equal(merge(model).layers[0].up.weight, exact.bfloat16())


def test_a_bias_where_the_layer_adds_none_is_refused():
    norm = nn.RMSNorm(4)
    model = AdaptedModel(
        nn.Sequential(norm), [Site("norm", "norm", "0", "0", 4, 4)], {"a": Affine(sites=("norm",))}
    )
    with pytest.raises(NotMergeable, match="norm is a RMSNorm, which adds no bias"):
        merge(model)
    model = AdaptedModel(
        nn.Sequential(nn.RMSNorm(4)),
        [Site("norm", "norm", "0", "0", 4, 4)],
        {"a": Affine(sites=("norm",), shift=False)},
    )
    assert torch.equal(merge(model)(torch.ones(2, 4)), model(torch.ones(2, 4)))
