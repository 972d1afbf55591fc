"""Poly and MHR: what their papers say and the contract does not know."""

import pytest
import torch

from speech_peft.compose.names import fill, states
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.errors import ConfigError
from speech_peft.methods.lora import Lora
from speech_peft.methods.poly import Poly
from tests import toy

TWO = ("tel", "far")


def part(**settings):
    torch.manual_seed(0)
    site = Site("layers.0.attn.q", "linear", "q", "q", 8, 12)
    made = Poly(**{"names": TWO, "skills": 3, "rank": 2, **settings}).build(site, torch.nn.Identity(), None)
    torch.nn.init.normal_(made.b)
    torch.nn.init.normal_(made.own.router.known)
    return made


def model(**settings) -> AdaptedModel:
    torch.manual_seed(0)
    made = AdaptedModel(
        toy.toy(), toy.sites(), {"mhr": Poly(**{"names": TWO, "skills": 3, **settings})}
    ).eval()
    for site in made.sites["mhr"]:
        torch.nn.init.normal_(made.at("mhr", site).b)
    for name, parameter in made.named_parameters():
        if "router" in name:
            torch.nn.init.normal_(parameter, std=2.0)
    return made


def told(*tasks: int) -> Context:
    return Context(task=torch.tensor(tasks))


@torch.no_grad()
def test_heads_that_choose_alike_are_poly():
    one, many = part(), part(heads=4)
    many.a.copy_(one.a.view(1, 3, 4, 2, 2).transpose(0, 2)[:, :, 0])
    many.b.copy_(one.b.view(1, 3, 2, 4, 3).permute(3, 1, 2, 0, 4)[:, :, :, 0])
    many.own.router.known.copy_(one.own.router.known.expand(-1, 4, -1))
    x, y = torch.randn(2, 5, 8), torch.randn(2, 5, 12)
    torch.testing.assert_close(many(x, y, told(0, 1)), one(x, y, told(0, 1)))


@torch.no_grad()
def test_a_task_that_nobody_names_has_the_mean_of_the_bank():
    made = part(heads=2)
    for ctx in (Context(), told(-1, -1)):
        a, b = made.matrices(ctx.task)
        torch.testing.assert_close(a[0], made.a.mean(1).flatten(0, 1))
        torch.testing.assert_close(b[0], torch.cat([*made.b.mean(1)], -1))


@torch.no_grad()
def test_it_computes_what_peft_s_layer_computes():
    peft = pytest.importorskip("peft", exc_type=ImportError)
    layer = pytest.importorskip("peft.tuners.poly.layer", exc_type=ImportError)
    config = peft.PolyConfig(r=2, n_tasks=2, n_skills=3, n_splits=2)
    frozen = torch.nn.Linear(8, 12)
    theirs, ours = layer.Linear(frozen, "a", config).eval(), part(heads=2)
    theirs.poly_lora_A["a"].copy_(ours.a)
    theirs.poly_lora_B["a"].copy_(ours.b)
    theirs.poly_router["a"].module_logits.copy_(ours.own.router.known.flatten(1))
    x = torch.randn(2, 5, 8)
    published = theirs(x, task_ids=torch.tensor([1, 0]))
    torch.testing.assert_close(ours(x, frozen(x), told(1, 0)), published)


@torch.no_grad()
def test_each_clip_of_a_batch_is_as_in_a_batch_of_its_own_and_beams_keep_their_task():
    made, x = model(heads=2), toy.speech(3)
    alone = torch.cat([made(x[i : i + 1], ctx=told(task)) for i, task in enumerate((1, -1, 0))])
    torch.testing.assert_close(made(x, ctx=told(1, -1, 0)), alone)
    beams = x.repeat_interleave(2, 0)
    torch.testing.assert_close(made(beams, ctx=told(1, -1, 0)), alone.repeat_interleave(2, 0))
    assert not torch.allclose(made(x, ctx=told(0, -1, 1)), alone)


@pytest.mark.parametrize(
    ("granularity", "choices"), [("linear", 8), ("block", 2), ("stack", 1), ("model", 1)]
)
def test_layers_share_a_choice_as_they_are_told(granularity, choices):
    made = model(granularity=granularity, sites=("*.attn.[qkvo]",), heads=2)
    routers = [p for name, p in made.named_parameters() if "router" in name]
    assert sum(p.numel() for p in routers) == choices * len(TWO) * 2 * 3


def test_a_new_task_is_learned_by_its_choice_alone():
    """MHR-z: L Q S numbers; the bank and the tasks that were there stay, bit for bit."""
    old = model(heads=2)
    before = old(toy.speech(), ctx=told(0, 1))
    method = old.methods["mhr"].extended(["far tel"])
    new = AdaptedModel(toy.toy(), toy.sites(), {"mhr": method}).eval()
    fill(new, "mhr", states(old, "mhr"))
    assert torch.equal(new(toy.speech(), ctx=told(0, 1)), before)
    parameters = new.trainable("mhr")
    assert sum(p.numel() for p in parameters) == len(new.sites["mhr"]) * 2 * 3
    optimiser = torch.optim.Adam(parameters, 0.1)
    new(toy.speech(), ctx=told(2, 2)).square().sum().backward()
    optimiser.step()
    assert torch.equal(new(toy.speech(), ctx=told(0, 1)), before)
    again = AdaptedModel(toy.toy(), toy.sites(), {"mhr": method.extended(["a", "b"])}).eval()
    fill(again, "mhr", states(new, "mhr"))
    assert torch.equal(again(toy.speech(), ctx=told(2, 0)), new(toy.speech(), ctx=told(2, 0)))


def test_the_choice_learns_at_a_pace_of_its_own():
    made = model(router_pace=7.0, granularity="block")
    paces = {
        name: made.paces_of("mhr")[p] for name, p in made.named_parameters() if p in made.paces_of("mhr")
    }
    assert {pace for name, pace in paces.items() if "router" in name} == {7.0}
    assert {pace for name, pace in paces.items() if "router" not in name} == {1.0}


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"layers.0.attn.q: poly with heads: 5, and the layer reads 8"):
        part(heads=5)
    with pytest.raises(ConfigError, match=r"tel named twice"):
        Poly(names=("tel", "tel"))
    with pytest.raises(ConfigError, match=r"fresh: 2 of 2 names"):
        Poly(names=TWO, fresh=2)
    with pytest.raises(ConfigError, match=r"task: 'tle' is none of its names. Did you mean 'tel'"):
        Poly(names=TWO).number("tle")


def test_for_one_task_it_is_a_lora():
    ordinary = Poly(names=TWO, rank=3, alpha=2.0, sites=("*.attn.k",)).ordinary()
    assert ordinary == Lora(rank=3, alpha=2.0, sites=("*.attn.k",))
