"""Facts of PiSSA; that PEFT's own computes the same is in unit/test_peft_lora.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speech_peft.compose.merge import merge
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.errors import ConfigError
from speech_peft.methods.pissa import Pissa, principal
from tests import toy

SITE = Site("layers.0.ffn.down", "linear", "down", "down", 24, 16)


def alone(weight: Tensor, **settings) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data = weight
    return Pissa(**settings).build(SITE, layer, None)


def trained(part: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return part


@pytest.mark.parametrize("settings", [{}, {"alpha": 6.0}, {"niter": 2}])
def test_outputs_and_gradients_are_those_of_the_published_residual_form(settings):
    layer = nn.Linear(24, 16).double()
    part = trained(alone(layer.weight.data, rank=4, **settings).double())
    x, target = torch.randn(2, 5, 24).double(), torch.randn(2, 5, 16).double()
    s = settings.get("alpha", 4.0) / 4
    residual = layer.weight.detach() - s * part.b0 @ part.a0
    a, b = (p.detach().clone().requires_grad_() for p in (part.a, part.b))
    published = F.linear(x, residual, layer.bias) + s * F.linear(F.linear(x, a), b)
    ours = part(x, layer(x), Context())
    torch.testing.assert_close(ours, published, atol=1e-12, rtol=1e-12)
    gradients = torch.autograd.grad((published * target).sum(), (a, b))
    torch.testing.assert_close(
        torch.autograd.grad((ours * target).sum(), (part.a, part.b)), gradients, atol=1e-12, rtol=1e-12
    )


def test_it_starts_from_the_largest_components_shared_evenly():
    weight = torch.randn(16, 24)
    part = alone(weight, rank=5)
    u, s, vt = torch.linalg.svd(weight)
    torch.testing.assert_close(part.b0 @ part.a0, u[:, :5] * s[:5] @ vt[:5])
    torch.testing.assert_close(part.a0 @ part.a0.T, s[:5].diag(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part.b0.T @ part.b0, s[:5].diag(), atol=1e-5, rtol=1e-5)


def test_the_scale_does_not_change_the_principal_part():
    weight = torch.randn(16, 24)
    one, six = alone(weight, rank=4), alone(weight, rank=4, alpha=24)
    torch.testing.assert_close(6 * six.b0 @ six.a0, one.b0 @ one.a0)


def test_the_frozen_weight_stays_and_the_first_factors_do_not_train():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Pissa(rank=4)})
    stock = toy.toy().state_dict()
    assert all(torch.equal(value, stock[key]) for key, value in model.base.state_dict().items())
    assert {key.rpartition(".")[2] for key, _ in model.adapters.named_parameters()} == {"a", "b"}
    assert {key.rpartition(".")[2] for key, _ in model.adapters.named_buffers()} == {"a0", "b0"}


@torch.no_grad()
def test_a_fresh_adapter_on_a_bf16_base_changes_no_bit():
    base = toy.toy().bfloat16()
    x = toy.speech().bfloat16()
    model = AdaptedModel(base, toy.sites(), {"a": Pissa(rank=4)})
    with model.using():
        stock = model(x)
    assert torch.equal(model(x), stock)


@torch.no_grad()
def test_it_is_a_lora_of_twice_the_rank():
    weight = torch.randn(16, 24)
    part = trained(alone(weight, rank=3, alpha=6))
    stated = part.to_lora(weight, None)
    assert (stated.rank, stated.scale) == (6, 2.0)
    assert torch.equal(stated.a, torch.cat([part.a, part.a0]))
    assert torch.equal(stated.b, torch.cat([part.b, -part.b0], 1))
    assert torch.linalg.matrix_rank(part.merged(weight.double(), None)[0] - weight.double(), rtol=1e-6) == 6


@torch.no_grad()
def test_merged_equals_unmerged_to_the_last_digits_of_fp64():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Pissa(rank=4)}).eval().double()
    trained(model.adapters)
    expected = model(toy.speech().double())
    assert (merge(model)(toy.speech().double()) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_the_fast_svd_is_near_the_exact_one_and_nearer_with_more_iterations():
    u, _, v = torch.linalg.svd(torch.randn(40, 30), full_matrices=False)
    weight = u * 0.8 ** torch.arange(30) @ v
    best = (weight - product(weight, 4, None)).norm()
    worse = [(weight - product(weight, 4, niter)).norm() / best for niter in (1, 16)]
    assert worse[1] < 1.001 < worse[0] < 1.2


def product(weight: Tensor, rank: int, niter: int | None) -> Tensor:
    u, s, v = principal(weight, rank, niter)
    return u * s @ v.T


@pytest.mark.parametrize("niter", [None, 2])
def test_the_same_weight_gives_the_same_factors_and_leaves_the_seed_alone(niter):
    weight, state = torch.randn(40, 30), torch.get_rng_state()
    first = principal(weight, 4, niter)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(first, principal(weight, 4, niter), strict=True))


def test_more_components_than_there_are_is_refused_with_the_site():
    with pytest.raises(ConfigError, match=r"layers\.0\.ffn\.down: pissa cannot take rank 17 from .* 16 x 24"):
        alone(torch.randn(16, 24), rank=17)


def test_dropout_would_drop_the_base_and_is_refused():
    with pytest.raises(ValueError, match="dropout"):
        Pissa(dropout=0.1)  # pyright: ignore[reportCallIssue]
