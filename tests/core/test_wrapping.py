"""Methods that constrain the matrices of another: what they take from their host, and what they refuse."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from speech_peft.compose.merge import merge
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.core.wrapping import generator, plainly
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.low_bit import LowBit
from speech_peft.methods.mosa import Mosa
from speech_peft.methods.sparse import Sparse
from speech_peft.recipe import config
from speech_peft.registry import METHODS
from tests import toy

SOUND = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)), torch.tensor([8000, 5000])
WRAPPING = {LowBit: {}, Sparse: {"score": "random"}, Mosa: {"share": "none"}}


def wrap(kind, of: dict, **settings):
    return kind.model_validate({"of": of, **WRAPPING[kind], **settings})


def model(method, seed: int = 0) -> AdaptedModel:
    torch.manual_seed(seed)
    return AdaptedModel(toy.toy(), toy.sites(), {"a": method}).eval()


def hosts() -> list[dict]:
    """An example of every method that has matrices and no procedure."""
    found = []
    for name in METHODS.names():
        for i, example in enumerate(METHODS[name].examples()):
            try:
                wrap(LowBit, {"method": name, **example.model_dump(mode="json")})
            except ValueError:
                continue
            found.append(pytest.param({"method": name, **example.model_dump(mode="json")}, id=f"{name}-{i}"))
    return found


class Heard(NamedTuple):
    """A model that a host sits on, and how it is run."""

    adapted: AdaptedModel
    run: Callable[[], Tensor]


def heard(method, seed: int = 0) -> Heard:
    """The method on the toy, or on a tiny Whisper where its host adds keys, frames or streams; on a map of
    patches where it needs one.

    Skips where the host has no matrix, which must be what the refusal says.
    """
    torch.manual_seed(seed)
    host = METHODS[method.of.name].model_validate(method.of.model_dump())
    try:
        AdaptedModel(toy.toy(), toy.sites(), {"a": host})
        base, sites = toy.toy(), toy.sites()
        run: Callable[[], Tensor] = lambda: adapted(toy.speech())  # noqa: E731  one of two
    except ConfigError:
        backbone = toy.backbone_for(host.name)
        base, sites = backbone.module, backbone.sites()
        run = lambda: backbone.encode(backbone.prepare(*SOUND)).states  # noqa: E731
    parts = AdaptedModel(copy.deepcopy(base), sites, {"a": host}).parameters_of("a")
    if not any(p.dim() >= 2 for p in parts):
        with pytest.raises(ConfigError, match=f"{host.name} has no matrix"):
            AdaptedModel(base, sites, {"a": method})
        pytest.skip(f"{host.name} has no matrix, and is refused by that")
    torch.manual_seed(seed)
    adapted = AdaptedModel(base, sites, {"a": method}).eval()
    return Heard(adapted, run)


@pytest.mark.parametrize("kind", WRAPPING)
@pytest.mark.parametrize("of", hosts())
def test_any_host_is_wrapped_saved_and_loaded(kind, of, tmp_path):
    method = wrap(kind, of)
    adapted, run = heard(method)
    with torch.no_grad():
        for p in adapted.parameters_of("a"):
            p.add_(0.1 * torch.randn_like(p))
    folder = save.write(tmp_path / "a", adapted, "a", toy.CARD)
    saved = save.read(folder)
    assert saved.method == method
    loaded, run_loaded = heard(saved.pinned, seed=1)
    saved.load_into(loaded, "a")
    before = run()
    assert torch.equal(run_loaded(), before)
    for part in save.parts_of(loaded, "a").values():
        plainly(part)
    assert torch.equal(run_loaded(), before)
    assert not any(parametrize.is_parametrized(m) for m in loaded.modules())
    assert type(loaded.at("a", loaded.sites["a"][0])).__name__.startswith("_")  # the host's class again


@pytest.mark.parametrize("kind", WRAPPING)
@pytest.mark.parametrize("of", hosts())
def test_what_says_that_it_starts_as_the_identity_does_so_when_training_starts(kind, of):
    method = wrap(kind, of)
    if not method.identity_at_init:
        pytest.skip("it says that it does not")
    adapted, run = heard(method)
    life = method.lifecycle(adapted, "a")
    life.on_fit_start(lambda batch: run().sum(), [None])
    adapted.train()
    life.before_forward(0)
    with adapted.using():
        bare = run()
    assert torch.equal(run(), bare)


def test_hosts_of_keys_and_values_are_among_them():
    names = {param.values[0]["method"] for param in hosts()}
    assert {"prefix", "parscale", "prompt", "bottleneck", "lora"} <= names


def test_a_host_that_is_the_identity_by_cancelling_stays_so_only_unconstrained():
    pissa = {"method": "pissa", "rank": 4}
    starts = {kind.name: wrap(kind, pissa).identity_at_init for kind in WRAPPING}
    assert starts == {"low_bit": False, "sparse": False, "mosa": True}


@pytest.mark.parametrize("kind", WRAPPING)
def test_in_half_precision_a_saved_adapter_gives_what_it_gave(kind, tmp_path):
    method = wrap(kind, {"method": "bottleneck", "width": 5, "zero_up": False})
    adapted, loaded = (model(method, seed).to(torch.bfloat16) for seed in (0, 1))
    save.write(tmp_path / "a", adapted, "a", toy.CARD)
    save.read(tmp_path / "a").load_into(loaded, "a")
    x = toy.speech().bfloat16()
    torch.testing.assert_close(loaded(x), adapted(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", WRAPPING)
def test_a_wrapped_lora_merges_as_its_host_does(kind):
    method = wrap(kind, {"method": "lora", "rank": 3, "sites": ["*.ffn.up"]})
    adapted = model(method)
    with torch.no_grad():
        for p in adapted.parameters_of("a"):
            p.add_(0.1 * torch.randn_like(p))
    torch.testing.assert_close(merge(adapted)(toy.speech()), adapted(toy.speech()), atol=1e-5, rtol=1e-4)


def test_it_sits_where_its_host_sits_unless_told_otherwise():
    of = {"method": "bottleneck", "preset": "pfeiffer", "top": 1}
    assert [s.name for s in model(wrap(LowBit, of)).sites["a"]] == ["layers.1.block"]
    elsewhere = wrap(LowBit, of, sites=["layers.0.ffn"], top=None)
    assert [s.name for s in model(elsewhere).sites["a"]] == ["layers.0.ffn"]
    assert elsewhere.of.sites == ("*.block",)


def test_kinds_needs_and_promises_are_the_hosts():
    wrapped = wrap(Mosa, {"method": "prompt", "preset": "shallow"})
    assert wrapped.kinds == METHODS["prompt"].kinds
    assert wrapped.reads == METHODS["prompt"].reads
    assert not wrapped.identity_at_init
    assert not wrapped.keeps_length
    assert wrap(Mosa, {"method": "convpass"}).sees_neighbours
    with pytest.raises(ConfigError, match=r"lora cannot sit at layers\.0\.ffn"):
        model(wrap(LowBit, {"method": "lora", "sites": ["layers.0.ffn"]}))


def test_biases_and_norms_stay_free():
    adapted = model(wrap(LowBit, {"method": "bottleneck", "width": 4, "norm": True, "scale": "learned"}))
    branch = adapted.at("a", adapted.sites["a"][0]).branch
    assert isinstance(branch.down.bias, nn.Parameter)
    assert isinstance(branch.norm.weight, nn.Parameter)
    assert isinstance(branch.scale, nn.Parameter)
    assert parametrize.is_parametrized(branch.down, "weight")


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"method": "lorra"}, r"adapters\.a\.of: .*'lora'"),
        ({"method": "lora", "rnak": 3}, r"adapters\.a\.of: Lora has no field 'rnak'\. Did you mean 'rank'"),
        ({"method": "lora", "rank": -1}, r"adapters\.a\.of\.rank: "),
        ({"rank": 3}, r"adapters\.a\.of: give the host as \{method: NAME"),
        ({"method": "sparse", "of": {"method": "lora"}}, r"adapters\.a\.of: sparse wraps a method itself"),
    ],
)
def test_a_wrong_host_is_refused_by_its_key(of, message):
    from speech_peft.files.dotted import validate

    with pytest.raises(ConfigError, match=message):
        validate(LowBit, {"of": of}, "adapters.a")


def test_a_host_with_a_procedure_is_refused(monkeypatch):
    monkeypatch.setattr(Bottleneck, "lifecycle", lambda self, model, adapter: None)
    with pytest.raises(ValueError, match="bottleneck has a training procedure of its own"):
        wrap(Mosa, {"method": "bottleneck"})


def test_a_host_without_matrices_is_refused_at_its_site():
    with pytest.raises(ConfigError, match=r"at layers\.0\.norm_ffn affine has no matrix"):
        model(wrap(LowBit, {"method": "affine"}))


def test_a_recipe_reaches_into_the_host_and_comes_back_from_its_dump(tmp_path):
    over = ["adapters.sounds.of.width=8", "data.train=x", "data.valid=x"]
    (tmp_path / "x").write_text("")
    over = [o.replace("=x", f"={tmp_path}/x") for o in over]
    recipe = config.read("classify/whisper_low_bit", over)
    method = config.methods_of(recipe)["sounds"]
    assert method.of.width == 8
    assert type(method).model_validate(method.model_dump(mode="json")) == method


def test_a_copy_has_its_own_constraints():
    adapted = model(wrap(Mosa, {"method": "bottleneck", "width": 4}))
    twin = copy.deepcopy(adapted)
    adapted.methods["a"].lifecycle(adapted, "a").before_forward(1)
    assert twin.current.draws == {}
    twin.methods["a"].lifecycle(twin, "a").before_forward(2)
    assert (adapted.current.draws, twin.current.draws) == ({"a": 2}, {"a": 4})


def test_named_randomness_is_the_same_everywhere():
    first, same, other = (torch.rand(2, generator=generator("a", part)) for part in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
