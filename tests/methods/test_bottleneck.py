"""Facts of the bottleneck papers."""

import pytest
import torch

from speech_peft.compose.merge import merge
from speech_peft.core.adapter import NotMergeable
from speech_peft.core.context import Context
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.lora import Lora
from tests import toy

D, FFN, LAYERS, M = toy.DIM, toy.INNER, toy.DEPTH, 4


def adapted(method: Bottleneck | Lora) -> AdaptedModel:
    return AdaptedModel(toy.toy(), toy.sites(), {"a": method}).eval()


def parameters(method: Bottleneck) -> int:
    return count(adapted(method).parameters_of("a"))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


def test_houlsby_starts_near_the_identity_and_at_it_with_a_zero_up_projection():
    states = toy.speech()
    model = adapted(Bottleneck(preset="houlsby", width=M))
    with model.using():
        bare = model(states)
    assert 0 < relative(model(states), bare) < 1e-3
    assert torch.equal(adapted(Bottleneck(preset="houlsby", width=M, zero_up=True))(states), bare)


def test_houlsby_s_matrices_are_cut_off_at_two_deviations_and_those_of_llm_adapters_are_not():
    site = Site("s", "ffn", "", "", 256, 256)
    for preset, std, cut in (("houlsby", 1e-3, True), ("llm_parallel", 0.02, False)):
        branch = Bottleneck(preset=preset, width=256).build(site, torch.nn.Identity(), None).branch
        for weight in (branch.down.weight.detach(), branch.up.weight.detach()):
            assert (float(weight.abs().max()) <= 2 * std) == cut, preset
            # Cut off at two, a normal distribution of deviation 1 has one of 0.880.
            assert float(weight.std()) == pytest.approx(std * (0.880 if cut else 1.0), rel=0.02)


def test_he_s_parallel_adapter_is_half_as_wide_and_counts_four_times():
    method = Bottleneck(preset="he")
    model = adapted(method)
    assert [site.kind for site in model.sites["a"]] == ["ffn"] * LAYERS
    branch = model.at("a", model.sites["a"][0]).branch
    assert branch.down.weight.shape == (D // 2, D)
    assert not branch.up.weight.any()
    x, y = toy.speech(), toy.speech(seed=1)
    torch.nn.init.normal_(branch.up.weight)
    change = torch.relu(x @ branch.down.weight.T) @ branch.up.weight.T
    torch.testing.assert_close(model.at("a", model.sites["a"][0])(x, y, Context()), y + 4 * change)


def test_houlsby_has_two_adapters_a_block_of_2md_d_m_parameters():
    assert parameters(Bottleneck(preset="houlsby", width=M)) == 2 * LAYERS * (2 * M * D + D + M)


def test_houlsby_sits_on_the_sublayer_before_the_residual_is_added():
    model = adapted(Bottleneck(preset="houlsby", width=M))
    assert [site.name.split(".")[-1] for site in model.sites["a"]] == ["attn", "ffn"] * LAYERS


def test_pfeiffer_is_a_sixteenth_as_wide_once_a_block():
    model = adapted(Bottleneck(preset="pfeiffer"))
    assert [site.kind for site in model.sites["a"]] == ["block"] * LAYERS
    m = D // 16
    assert count(model.parameters_of("a")) == LAYERS * (2 * m * D + D + m)


@pytest.mark.parametrize(("width", "reduction"), [(16, 2.0), (768 // 16, 16.0)])
def test_reduction_divides_the_width_of_the_site(width, reduction):
    site = Site("s", "block", "", "", int(width * reduction), int(width * reduction))
    part = Bottleneck(preset="pfeiffer", reduction=reduction).build(site, torch.nn.Identity(), None)
    assert part.branch.down.out_features == width


def test_a_reduction_beyond_the_width_leaves_one_unit():
    site = Site("s", "block", "", "", 8, 8)
    part = Bottleneck(reduction=100).build(site, torch.nn.Identity(), None)
    assert part.branch.down.out_features == 1


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("llm_series_input", M * (D + D)),
        ("llm_series_output", M * (D + D)),
        ("llm_parallel", M * (D + FFN) + M * (FFN + D)),
    ],
)
def test_llm_adapters_count_their_two_matrices_and_no_bias(preset, expected):
    assert parameters(Bottleneck(preset=preset, width=M)) == LAYERS * expected


def test_series_input_equals_series_output_behind_the_identity():
    linear = torch.nn.Linear(D, D, bias=False)
    torch.nn.init.eye_(linear.weight)
    site = Site("only", "linear", "0", "0", D, D)
    outputs = []
    for preset in ("llm_series_input", "llm_series_output"):
        torch.manual_seed(0)
        method = Bottleneck(preset=preset, width=M, sites=("only",))
        model = AdaptedModel(torch.nn.Sequential(linear), [site], {"a": method})
        outputs.append(model(toy.speech()))
        linear._forward_hooks.clear()
        linear._forward_pre_hooks.clear()
    assert torch.equal(*outputs)


def parallel_and_lora(rank: int = M, alpha: float = 6.0) -> tuple[AdaptedModel, AdaptedModel]:
    parallel = adapted(
        Bottleneck(
            preset="llm_parallel",
            width=rank,
            activation="identity",
            scale=alpha / rank,
            sites=("*.attn.[qv]",),
        )
    )
    lora = adapted(Lora(rank=rank, alpha=alpha, sites=("*.attn.[qv]",)))
    with torch.no_grad():
        for site in lora.sites["a"]:
            branch, part = parallel.at("a", site).branch, lora.at("a", site)
            part.a.copy_(branch.down.weight)
            part.b.copy_(branch.up.weight)
    return parallel, lora


def test_parallel_without_activation_is_lora():
    parallel, lora = parallel_and_lora()
    assert relative(parallel(toy.speech()), lora(toy.speech())) < 1e-6


@torch.no_grad()
def test_parallel_without_activation_merges():
    parallel, _ = parallel_and_lora()
    assert relative(merge(parallel)(toy.speech()), parallel(toy.speech())) < 1e-5


@pytest.mark.parametrize("preset", ["llm_parallel", "llm_series_input", "llm_series_output"])
def test_tanh_refuses_to_merge_and_says_so(preset):
    with pytest.raises(NotMergeable, match=r"layers\.0\.ffn\.\w+ .*tanh"):
        merge(adapted(Bottleneck(preset=preset, width=M)))


def test_a_span_refuses_to_merge():
    with pytest.raises(NotMergeable, match=r"layers\.0\.ffn has no weight of its own"):
        merge(adapted(Bottleneck(width=M, activation="identity")))


def test_a_learned_scale_starts_at_one():
    fixed, learned = Bottleneck(width=M, zero_up=False), Bottleneck(width=M, zero_up=False, scale="learned")
    torch.manual_seed(0)
    a = adapted(fixed)(toy.speech())
    torch.manual_seed(0)
    assert torch.equal(adapted(learned)(toy.speech()), a)


def test_the_scale_multiplies_the_whole_branch_its_bias_included():
    torch.manual_seed(0)
    site = toy.sites()[0]
    one = Bottleneck(width=M, zero_up=False).build(site, torch.nn.Identity(), None)
    four = Bottleneck(width=M, zero_up=False, scale=4.0).build(site, torch.nn.Identity(), None)
    four.load_state_dict(one.state_dict())
    torch.nn.init.ones_(one.branch.up.bias)
    torch.nn.init.ones_(four.branch.up.bias)
    assert relative(four.branch(toy.speech()), 4 * one.branch(toy.speech())) < 1e-6


def test_presets_are_defaults_that_settings_override():
    assert Bottleneck(preset="houlsby", width=8).width == 8
    assert Bottleneck(preset="houlsby", reduction=2).width is None
    assert Bottleneck(preset="llm_parallel", activation="relu").activation == "relu"
    assert Bottleneck.model_validate(Bottleneck(preset="pfeiffer").model_dump()) == Bottleneck(
        preset="pfeiffer"
    )


def test_one_width_is_needed_and_two_are_refused():
    with pytest.raises(ValueError, match="width or reduction"):
        Bottleneck(width=8, reduction=2)


def test_dropout_works_in_training_and_rests_in_evaluation():
    model = adapted(Bottleneck(width=M, dropout=0.5, zero_up=False))
    assert torch.equal(model(toy.speech()), model(toy.speech()))
    model.train()
    assert not torch.equal(model(toy.speech()), model(toy.speech()))
