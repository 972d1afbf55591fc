"""Facts of Hydra, and the traps of its published code; with PEFT: unit/test_peft_lora.py."""

import pytest
import torch

from speech_peft.compose.merge import merge
from speech_peft.core.context import Context
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.methods.hydra import Hydra
from tests import toy

SITES = ("*.attn.o", "*.ffn.down", "*.attn.k")
"""Square, not square, and without a bias."""


def adapted(sites: tuple[str, ...] = SITES, **settings) -> AdaptedModel:
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Hydra(sites=sites, **settings)}).eval().double()
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.normal_()
    return model


def alone(dim_in: int = 24, dim_out: int = 16, **settings) -> torch.nn.Module:
    """The part of one layer, with random numbers, in fp64."""
    part = Hydra(**settings).build(Site("l", "linear", "l", "l", dim_in, dim_out), torch.nn.Identity(), None)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    return part.double().requires_grad_(False)


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"rank": 0, "sequential_rank": 3}, {"scale": 0.3}])
@torch.no_grad()
def test_merged_equals_unmerged_to_the_last_digits_of_fp64(settings):
    model = adapted(**settings)
    expected = model(toy.speech().double())
    assert (merge(model)(toy.speech().double()) - expected).abs().max() <= 1e-12 * expected.abs().max()


@torch.no_grad()
def test_the_sequential_branch_reads_the_bias_of_its_layer():
    part, layer = alone(rank=0, sequential_rank=2, bias=False), torch.nn.Linear(24, 16).double()
    weight, bias = part.merged(layer.weight, layer.bias)
    through = part.sequential.b @ part.sequential.a @ layer.bias
    assert through.abs().max() > 0.1
    torch.testing.assert_close(bias, layer.bias + through)
    torch.testing.assert_close(weight, layer.weight + part.sequential.b @ part.sequential.a @ layer.weight)


@torch.no_grad()
def test_the_branches_add_up_so_the_second_does_not_see_the_first():
    both, x, y = alone(), torch.randn(2, 5, 24).double(), torch.randn(2, 5, 16).double()
    parallel = both.parallel(x)
    sequential = both.sequential(y)
    torch.testing.assert_close(both(x, y, Context()), y + parallel + sequential)


@torch.no_grad()
def test_the_sequential_change_stays_between_its_own_columns_and_the_rows_of_the_weight():
    part, rank = alone(rank=0, sequential_rank=2), torch.linalg.matrix_rank
    weight = torch.randn(16, 5).double() @ torch.randn(5, 24).double()  # of rank 5, so its rows span little
    change = part.merged(weight, None)[0] - weight
    assert rank(change) == 2
    assert rank(torch.cat([change, part.sequential.b], 1)) == 2
    assert rank(torch.cat([weight, change])) == 5


@torch.no_grad()
def test_the_merged_weight_changes_by_both_ranks():
    model = adapted(("*.ffn.down",), rank=3, sequential_rank=2)
    change = merge(model).layers[0].down.weight - model.base.layers[0].down.weight
    assert torch.linalg.matrix_rank(change) == 5


@torch.no_grad()
def test_without_the_sequential_branch_it_is_lora():
    part, weight = alone(rank=2, sequential_rank=0, bias=False), torch.randn(16, 24).double()
    stated = part.to_lora(weight, torch.randn(16).double())
    assert torch.equal(stated.a, part.parallel.a)
    assert torch.equal(stated.b, part.parallel.b)
    assert (stated.scale, stated.bias) == (1.0, None)


def test_it_counts_what_the_authors_code_counts():
    """ViT-B/16: twelve blocks, at the output of attention and the second feed-forward layer."""
    parts = [alone(768, 768), alone(3072, 768)]
    assert 12 * sum(count(part.parameters()) for part in parts) == 239_712


def test_without_biases_it_counts_as_computed_for_whisper_tiny():
    parts = [alone(384, 384, bias=False), alone(1536, 384, bias=False)]
    assert 4 * sum(count(part.parameters()) for part in parts) == 33_792


def test_the_default_sites_are_the_outputs_of_both_sublayers():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Hydra()})
    names = [site.name for site in model.sites["a"]]
    assert names == [f"layers.{i}.{name}" for i in range(2) for name in ("attn.o", "ffn.down")]


def test_a_dropout_of_the_base_falls_on_the_sum():
    model = adapted(("*.ffn.down",))
    block, x = model.base.layers[0], toy.speech().double()
    block.drop.train()
    with torch.no_grad():
        torch.manual_seed(1)
        (states,) = block(x)
        kept = states != x + block.attn(hidden_states=block.norm_attn(x))[0]
    assert 0.3 < kept.double().mean() < 0.7


def test_a_bf16_layer_is_summed_in_fp64_and_rounded_once():
    model = adapted(("*.ffn.down",))
    model.base.bfloat16()
    layer, part = model.base.layers[0].down, model.at("a", model.sites["a"][0])
    with torch.no_grad():
        exact = part.merged(layer.weight.double(), layer.bias.double())[0]
    assert torch.equal(merge(model).layers[0].down.weight, exact.bfloat16())


def test_the_scale_is_no_parameter_that_weight_decay_could_pull_at():
    assert {name.rpartition(".")[2] for name, _ in alone(scale=2.0).named_parameters()} == {
        "a",
        "b",
        "a_bias",
        "b_bias",
    }


def test_its_dropout_works_in_training_and_rests_in_evaluation():
    part, x, y = alone(dropout=0.5), torch.randn(2, 5, 24).double(), torch.randn(2, 5, 16).double()
    assert not torch.equal(part.train()(x, y, Context()), part(x, y, Context()))
    assert torch.equal(part.eval()(x, y, Context()), part(x, y, Context()))


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="nothing would train"):
        Hydra(rank=0)
