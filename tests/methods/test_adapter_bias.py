"""Facts of AdapterBias; its exchange with PEFT is in unit/test_peft_lora.py."""

import pytest
import torch
from torch import nn

from speech_peft.compose.merge import merge
from speech_peft.core.context import Context
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import tensors_of
from speech_peft.core.site import Site
from speech_peft.errors import ConfigError
from speech_peft.methods.adapter_bias import AdapterBias, alphas
from speech_peft.methods.affine import Affine
from tests import toy


def adapted(**settings) -> AdaptedModel:
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": AdapterBias(**settings)}).eval()
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.normal_()
    return model


def parts(model: AdaptedModel) -> list[nn.Module]:
    return [model.at("a", site) for site in model.sites["a"]]


@torch.no_grad()
def test_every_frame_moves_along_one_direction():
    part = parts(adapted())[0]
    x, y = torch.randn(2, 7, toy.INNER), torch.randn(2, 7, toy.DIM)
    moved = (part(x, y, Context()) - y).flatten(0, 1)
    assert torch.linalg.matrix_rank(moved, rtol=1e-4) == 1
    towards = nn.functional.cosine_similarity(moved, part.v[None]).abs()
    assert torch.allclose(towards, torch.ones(14), atol=1e-4)


@torch.no_grad()
def test_how_far_is_read_from_what_enters_the_layer():
    model = adapted()
    seen, layer = {}, model.base.layers[1].down
    layer.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    with alphas(model, "a") as found:
        model(toy.speech())
    score = parts(model)[1].score
    assert seen["x"].shape[-1] == toy.INNER != toy.DIM
    assert torch.allclose(found["layers.1.ffn.down"], seen["x"] @ score.weight[0] + score.bias, atol=1e-5)


@pytest.mark.parametrize("share", [False, True])
@torch.no_grad()
def test_merged_equals_unmerged_to_the_last_digits_of_fp64(share):
    model = adapted(share_alpha=share).double()
    expected = model(toy.speech().double())
    assert (merge(model)(toy.speech().double()) - expected).abs().max() <= 1e-12 * expected.abs().max()


@torch.no_grad()
def test_it_is_a_lora_of_rank_one_with_a_bias_and_no_number_is_rounded():
    part = parts(adapted())[0]
    stated = part.to_lora(torch.zeros(toy.DIM, toy.INNER), None)
    assert (stated.rank, stated.scale) == (1, 1.0)
    assert torch.equal(stated.a, part.score.weight)
    assert torch.equal(stated.b[:, 0], part.v)
    assert torch.equal(stated.bias, part.score.bias * part.v)


def test_a_layer_counts_what_it_reads_and_writes_and_one():
    assert count(adapted().parameters_of("a")) == toy.DEPTH * (toy.INNER + toy.DIM + 1)


def test_with_norms_it_counts_what_the_authors_code_counts_on_bert_large():
    shift = AdapterBias().build(Site("f", "linear", "f", "f", 4096, 1024), nn.Identity(), None)
    norm = Affine().build(Site("n", "norm", "n", "n", 1024, 1024), nn.Identity(), None)
    assert 24 * count(shift.parameters()) + 25 * count(norm.parameters()) == 174_104


def test_a_shared_score_is_one_for_all_layers_counted_and_saved_once():
    model = adapted(share_alpha=True)
    assert len({id(part.score) for part in parts(model)}) == 1
    assert count(model.parameters_of("a")) == toy.DEPTH * toy.DIM + toy.INNER + 1
    assert set(tensors_of(model, "a")) == {
        "layers.0.ffn.down.v",
        "layers.1.ffn.down.v",
        "shared.weight",
        "shared.bias",
    }


def test_layers_of_two_widths_share_no_score():
    with pytest.raises(ConfigError, match=r"layers\.0\.ffn\.up reads 16, layers\.0\.ffn\.down 24"):
        adapted(share_alpha=True, sites=("*.ffn.*",))


@pytest.mark.parametrize("share", [False, True])
def test_from_the_start_the_direction_gets_a_gradient_and_the_score_is_not_zero(share):
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": AdapterBias(share_alpha=share)})
    model(toy.speech()).square().sum().backward()
    for part in parts(model):
        assert not part.v.any()
        assert part.v.grad.any()
        assert part.score.weight.any()


@torch.no_grad()
def test_the_shift_is_added_before_the_residual():
    model = adapted(sites=("layers.1.ffn.down",))
    x = toy.speech()
    with alphas(model, "a") as seen:
        y = model(x)
    with model.using():
        frozen = model(x)
    shift = seen["layers.1.ffn.down"][..., None] * parts(model)[0].v
    assert torch.allclose(y - frozen, shift, atol=1e-5)


@torch.no_grad()
def test_the_map_has_a_number_for_each_frame_of_each_layer():
    model = adapted()
    before = model(toy.speech())
    with alphas(model, "a") as seen:
        inside = model(toy.speech())
    assert {name: tuple(map_.shape) for name, map_ in seen.items()} == {
        f"layers.{i}.ffn.down": (2, 5) for i in range(2)
    }
    assert torch.equal(before, inside), "looking changed what was looked at"
    seen.clear()
    model(toy.speech())
    assert not seen, "a map is still written after the block"


def test_another_method_has_no_map():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Affine()})
    with pytest.raises(ConfigError, match="'a' is of method affine"), alphas(model, "a"):
        pass
