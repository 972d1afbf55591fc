"""Hyper-Adapters and Hyperformer: what their papers say and the contract does not know."""

import pytest
import torch

from speech_peft.compose.names import fill, states
from speech_peft.core.context import Context
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.hyper import Hyper
from tests import toy

TWO = ("cs", "nl")
SMALL = {"names": TWO, "width": 3, "vector": 4, "hidden": 8, "paper_start": True}


def model(**settings) -> AdaptedModel:
    torch.manual_seed(0)
    return AdaptedModel(toy.toy(), toy.sites(), {"hyper": Hyper(**{**SMALL, **settings})}).eval()


def told(*languages: int) -> Context:
    return Context(language=torch.tensor(languages))


def sites(blocks: int, width: int, *places: str) -> list[Site]:
    return [Site(f"layers.{i}.{p}", "ffn", "a", "a", width, width) for i in range(blocks) for p in places]


def networks(method: Hyper, at: list[Site]) -> torch.nn.Module:
    with torch.device("meta"):
        return method.shared(at)


@torch.no_grad()
def test_what_is_written_is_of_one_size_however_wide_the_network_is():
    spread = []
    for hidden in (64, 256, 1024):
        torch.manual_seed(0)
        shared = Hyper(names=TWO, width=16, hidden=hidden).shared(sites(2, 64, "ffn"))
        written = shared.networks["all"](shared.vector_of(torch.tensor([0, 1])), 0, 0)
        spread.append(float(written["branch.down.weight"].std()))
    assert max(spread) / min(spread) < 1.2, spread


@torch.no_grad()
@pytest.mark.parametrize("flavour", ["hyper_adapter", "hyperformer", "hyperformer_pp"])
def test_each_clip_of_a_batch_is_as_in_a_batch_of_its_own(flavour):
    made, x = model(flavour=flavour, key="language"), toy.speech(4)
    alone = torch.cat([made(x[i : i + 1], ctx=told(who)) for i, who in enumerate((1, 0, -1, 1))])
    torch.testing.assert_close(made(x, ctx=told(1, 0, -1, 1)), alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(made(x, ctx=told(0, 0, -1, 1))[0], alone[0])


def test_a_network_of_hyperformer_pp_costs_the_same_at_any_depth():
    """2.55 million at the width of T5-base, with r = 24: a vector more for each further block."""
    method = Hyper(names=("one",), flavour="hyperformer_pp", vector=64)
    sizes = {
        depth: count(
            networks(method, sites(depth, 768, "attn", "ffn")).networks["encoder"].heads.parameters()
        )
        for depth in (12, 24)
    }
    assert sizes == {12: 2_547_480, 24: 2_547_480}


def test_places_have_networks_of_their_own_in_hyperformer_and_stacks_in_both():
    at = [*sites(2, 8, "attn", "ffn"), Site("decoder.layers.0.ffn", "ffn", "a", "a", 8, 8)]
    groups = {
        flavour: list(networks(Hyper(**{**SMALL, "flavour": flavour}), at).networks)
        for flavour in ("hyper_adapter", "hyperformer", "hyperformer_pp")
    }
    assert groups == {
        "hyper_adapter": ["all"],
        "hyperformer": ["encoder_attn", "encoder_ffn", "decoder_ffn"],
        "hyperformer_pp": ["encoder", "decoder"],
    }


def test_a_new_language_is_learned_by_its_vector_alone():
    old = model()
    before = old(toy.speech(), ctx=told(0, 1))
    new = AdaptedModel(toy.toy(), toy.sites(), {"hyper": old.methods["hyper"].extended(["pl"])}).eval()
    fill(new, "hyper", states(old, "hyper"))
    assert torch.equal(new(toy.speech(), ctx=told(0, 1)), before)
    parameters = new.trainable("hyper")
    assert [tuple(p.shape) for p in parameters] == [(1, SMALL["vector"])]
    new(toy.speech(), ctx=told(2, 2)).square().sum().backward()
    assert parameters[0].grad.any()


def test_for_one_language_it_is_a_bottleneck_with_the_norm_where_the_paper_has_it():
    assert Hyper(names=TWO).ordinary() == Bottleneck(
        preset="parallel", form="series", width=64, norm=True, bias=False, sites=("*.block",)
    )
    former = Hyper(names=TWO, flavour="hyperformer").ordinary()
    assert former == Bottleneck(
        form="series", width=24, norm_out=True, activation="gelu", sites=("*.attn", "*.ffn")
    )
    fresh = former.build(sites(1, 8, "ffn")[0], torch.nn.Identity(), None)
    y = torch.randn(2, 3, 8)
    assert torch.equal(fresh(y, y, Context()), y), "and starts as the identity by itself too"


def test_sites_of_other_widths_are_refused_by_name():
    at = [*sites(1, 8, "ffn"), *sites(1, 12, "mlp")]
    with pytest.raises(ConfigError, match=r"layers.0.ffn: one network writes for sites of one width"):
        Hyper(**SMALL).shared(at)
