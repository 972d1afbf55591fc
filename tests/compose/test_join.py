"""Several adapters made into one: what each way of it has to give, whatever was learned."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor

from speech_peft.compose.alignment import assignment, reorder
from speech_peft.compose.changes import elected
from speech_peft.compose.join import join
from speech_peft.compose.joining import Joining
from speech_peft.core.low_rank import LowRank
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.affine import Affine
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.fusion import Fusion
from speech_peft.methods.lora import Lora
from speech_peft.methods.low_bit import LowBit
from tests import toy

X = toy.speech(2, 40)
LORA = Lora(rank=2, alpha=3, sites=("*.attn.[qv]",), bias=True)
INNER = Bottleneck(width=6, activation="relu", sites=("*.ffn",))
FOLDED = INNER.model_copy(update={"norm": True, "scale": "learned", "activation": "gelu"})


def adapted(**methods) -> AdaptedModel:
    torch.manual_seed(1)
    model = AdaptedModel(toy.toy(), toy.sites(), methods).eval()
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(0.1, 0.4)
    return model


@torch.no_grad()
def changed(model: AdaptedModel, *names: str) -> Tensor:
    """What adapters at one layer change of its output."""
    with model.using():
        stock = model(X)
    with model.using(*names):
        return model(X) - stock


def alone(joined, name: str = "adapter") -> AdaptedModel:
    return joined.attached(toy.toy(), toy.sites(), name).eval()


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def twin(model: AdaptedModel, a: str, b: str) -> None:
    """Make b what a is."""
    model.adapters[b].load_state_dict(model.adapters[a].state_dict())


@pytest.mark.parametrize("method", [LORA, INNER, FOLDED, Affine(sites=("*.ffn.up",))], ids=lambda m: m.name)
def test_the_average_of_an_adapter_with_itself_is_itself(method):
    model = adapted(a=method, b=method)
    twin(model, "a", "b")
    before = changed(model, "a")
    same(changed(alone(join(model, ("a", "b"), Joining("average", (3.0, 1.0)))), "adapter"), before)


@torch.no_grad()
@pytest.mark.parametrize("heard", [False, True], ids=["by weights", "by activations"])
@pytest.mark.parametrize("method", [INNER, FOLDED], ids=["plain", "norm and scale"])
def test_mera_of_an_adapter_and_a_permutation_of_itself_is_itself(method, heard):
    model = adapted(a=method, b=method)
    twin(model, "a", "b")
    sites, orders = model.sites["a"], {}
    for site in sites:
        orders[site.name] = torch.randperm(6)
        reorder(model.at("b", site), orders[site.name])
    before = changed(model, "a")
    same(changed(model, "b"), before)
    plain = changed(alone(join(model, ("a", "b"), Joining("average"))), "adapter")
    assert (plain - before).norm() > 0.1 * before.norm(), "or there would be nothing to align"
    gave = {s.name: [u := torch.randn(6, 50), u[orders[s.name]]] for s in sites} if heard else None
    joined = join(model, ("a", "b"), Joining("mera"), gave)
    same(changed(alone(joined), "adapter"), before)
    assert joined.alignment.moved > 0


def test_adapters_that_began_alike_stay_in_their_order():
    model = adapted(a=INNER, b=INNER, c=INNER)
    for name in ("b", "c"):
        twin(model, "a", name)
        for parameter in model.parameters_of(name):
            parameter.data += 0.01 * torch.randn_like(parameter)
    mera, average = (join(model, ("a", "b", "c"), Joining(how)) for how in ("mera", "average"))
    assert mera.alignment.moved == 0
    assert all(torch.equal(v, average.parts[s][k]) for s, p in mera.parts.items() for k, v in p.items())


def test_the_anchor_is_the_adapter_that_the_others_are_nearest_to():
    model = adapted(far=INNER, middle=INNER, near=INNER)
    twin(model, "middle", "near")
    for parameter in model.parameters_of("near"):
        parameter.data += 0.01
    assert join(model, ("far", "middle", "near"), Joining("mera")).alignment.anchor in (1, 2)
    assert join(model, ("far", "middle", "near"), Joining("mera", anchor=0)).alignment.anchor == 0


def test_an_assignment_is_the_cheapest_of_all():
    generator = torch.Generator().manual_seed(0)
    own, other = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    _, cost = assignment(own, other)
    every = [float((own - other[list(p)]).double().square().sum()) for p in permutations(range(5))]
    assert cost == pytest.approx(min(every))


def one_layer(*ranks: int, site: str = "layers.1.ffn.down") -> AdaptedModel:
    """LoRAs at a layer behind which nothing follows, so that what they change of the output adds up."""
    return adapted(**{f"r{rank}": LORA.model_copy(update={"rank": rank, "sites": (site,)}) for rank in ranks})


def test_cat_is_the_sum_of_what_all_change_each_by_its_factor():
    model = one_layer(2, 3)
    joined = join(model, ("r2", "r3"), Joining("cat", (1.0, -0.5)))
    assert (joined.method.rank, joined.lost) == (5, 0.0)
    same(changed(alone(joined), "adapter"), changed(model, "r2") - 0.5 * changed(model, "r3"))


def test_adapters_at_different_layers_join_at_all_of_them():
    up, down = (LORA.model_copy(update={"sites": (f"layers.1.ffn.{n}",)}) for n in ("up", "down"))
    model = adapted(up=up, down=down)
    same(changed(alone(join(model, ("up", "down"), Joining("cat"))), "adapter"), changed(model, "up", "down"))


@pytest.mark.parametrize(("how", "share"), [("svd", 1.0), ("sum", 1.0), ("average", 0.5)])
def test_with_room_for_all_it_is_exact_and_without_it_says_what_it_leaves_out(how, share):
    model = one_layer(2, 3)
    whole = share * (changed(model, "r2") + changed(model, "r3"))
    roomy = join(model, ("r2", "r3"), Joining(how, rank=7))
    same(changed(alone(roomy), "adapter"), whole)
    assert roomy.method.rank == 7
    assert roomy.lost == pytest.approx(0, abs=1e-6)
    tight = join(model, ("r2", "r3"), Joining(how))
    assert tight.method.rank == 3
    assert 0 < tight.lost < 1


def test_ties_keeps_where_signs_agree_and_one_of_two_where_they_do_not():
    def change(rows):
        return LowRank(torch.eye(2), torch.tensor(rows), 2.0)

    both = change([[3.0, 1.0], [0.1, 2.0]]), change([[1.0, -4.0], [0.1, 2.0]])
    made, error = elected(both, (1.0, 1.0), 2, 0.75)
    torch.testing.assert_close(made.scale * made.b @ made.a, torch.tensor([[2.0, -4.0], [0.0, 2.0]]))
    assert error < 1e-6


def test_dare_of_everything_is_the_sum_and_of_less_the_sum_on_the_average():
    model = one_layer(2, 3)
    names, whole = ("r2", "r3"), changed(one_layer(2, 3), "r2") + changed(one_layer(2, 3), "r3")
    asked = Joining("dare", rank=16, density=1.0)
    same(changed(alone(join(model, names, asked)), "adapter"), whole)
    some = [
        changed(alone(join(model, names, replace(asked, density=0.5, seed=seed))), "adapter")
        for seed in (0, 0, 1)
    ]
    assert torch.equal(some[0], some[1])
    assert not torch.allclose(some[0], some[2])
    assert not torch.allclose(some[0], whole)


REFUSED = {
    "mera": ({"a": LORA, "b": LORA}, Joining("mera"), "those of a LoRA can be turned in any way"),
    "cat": ({"a": LORA, "b": INNER}, Joining("cat"), "joins what amounts to LoRAs, and b is a bottleneck"),
    "kinds": ({"a": INNER, "b": LORA}, Joining(), "only adapters of one kind"),
    "settings": (
        {"a": INNER, "b": INNER.model_copy(update={"width": 5})}, Joining(), "settings: width is 6 and 5",
    ),
    "one": ({"a": INNER}, Joining(), "two adapters or more"),
    "units": ({"a": Affine(), "b": Affine()}, Joining("mera"), "a is a affine, and at .* no inner units"),
    "factors": ({"a": INNER, "b": INNER}, Joining(factors=(1.0,)), "1 of them, and 2 adapters"),
    "rank": ({"a": LORA, "b": LORA}, Joining("cat", rank=3), "of rank 4; take --how svd"),
    "packed": ({"a": LowBit(of=INNER), "b": LowBit(of=INNER)}, Joining(), "a is a low_bit, whose numbers"),
    "mixer": ({"a": INNER, "b": Fusion(over=("a",))}, Joining(), "b is a fusion over a; join these"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_joined_is_refused_by_name(case):
    methods, joining, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        join(adapted(**methods), tuple(methods), joining)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"how": "mean"}, "there is no 'mean'; expected average, sum"),
        ({"density": 0.0}, "density: 0.0 is no share"),
        ({"factors": (1.0, -1.0)}, "they are shares"),
    ],
)
def test_a_way_that_there_is_not_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Joining(**fields)


def test_a_norm_that_shifts_what_enters_needs_a_bias_to_be_folded_into():
    bare = FOLDED.model_copy(update={"bias": False})
    with pytest.raises(ConfigError, match=r"a is a bottleneck, and at layers\.0\.ffn its norm shifts"):
        join(adapted(a=bare, b=bare), ("a", "b"), Joining())
