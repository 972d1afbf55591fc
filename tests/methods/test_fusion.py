"""Fusion: what its papers say and the contract does not know."""

import json

import pytest
import torch

from speech_peft.core.context import Context
from speech_peft.core.lifecycle import Outcome
from speech_peft.core.model import AdaptedModel
from speech_peft.core.passage.ids import context_of
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.fusion import Fusion
from tests import tiny, toy

TWO = ("tel", "far")


def model(*, same: bool = False, at: str = "*.ffn", **settings) -> AdaptedModel:
    expert = Bottleneck(width=4, zero_up=False, sites=(at,))
    torch.manual_seed(0)
    made = AdaptedModel(
        toy.toy(), toy.sites(), {"tel": expert, "far": expert, "fuse": Fusion(**{"over": TWO, **settings})}
    )
    if same:
        made.adapters["far"].load_state_dict(made.adapters["tel"].state_dict())
    return made.eval()


def parts(made: AdaptedModel) -> list:
    return [made.at("fuse", site) for site in made.sites["fuse"]]


def alone(made: AdaptedModel, name: str) -> torch.Tensor:
    with made.using(name):
        return made(toy.speech())


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rank": 3, "value": "none"},
        {"how": "scalar"},
        {"how": "mean"},
        {"values": "output", "residual": "none"},
    ],
)
def test_an_adapter_fused_with_itself_is_that_adapter(settings):
    made = model(same=True, **settings)
    torch.testing.assert_close(alone(made, "fuse"), alone(made, "tel"), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_adapter_that_has_all_the_weight_is_alone():
    made = model(how="scalar")
    for part in parts(made):
        part.alpha.copy_(torch.tensor([-200.0, 200.0]))
    torch.testing.assert_close(alone(made, "fuse"), alone(made, "far"))
    assert not torch.allclose(alone(made, "fuse"), alone(made, "tel"))


@torch.no_grad()
def test_the_mean_is_that_of_changes_and_the_sum_is_parallel_composition():
    made, both, x = model(how="mean", at="layers.1.ffn"), model(how="sum", at="layers.1.ffn"), toy.speech()
    with made.using():
        bare = made(x)
    # In the last block nothing comes behind, so changes of its output add up.
    changes = [alone(made, name) - bare for name in TWO]
    torch.testing.assert_close(alone(made, "fuse") - bare, sum(changes) / 2)
    torch.testing.assert_close(alone(both, "fuse") - bare, sum(changes))


@torch.no_grad()
def test_each_adapter_is_as_it_was_when_the_fusion_is_taken_off():
    made = model()
    fused = alone(made, "fuse")
    fresh = model()
    for name in TWO:
        assert torch.equal(alone(made, name), alone(fresh, name))
        assert not torch.equal(alone(made, name), fused)


def test_the_order_of_names_is_part_of_what_a_fusion_is():
    assert Fusion(over=("tel", "far")) != Fusion(over=("far", "tel"))
    made = model(how="scalar")
    for part in parts(made):
        torch.nn.init.normal_(part.alpha)
    one = alone(made, "fuse")
    for part in parts(made):
        part.over = ("far", "tel")
    assert not torch.allclose(alone(made, "fuse"), one)


def test_of_an_encoder_as_wide_as_published_it_trains_the_published_numbers_without_the_idle_bias():
    """3 d^2 + 2 d at d = 32 in AdapterHub: 3,136; the bias of K, 32 of them, cancels in the softmax."""
    from speech_peft.core.site import Site

    part = Fusion(over=TWO).build_over(Site("a", "ffn", "a", "a", 32, 32), torch.nn.Identity(), None, {})
    assert sum(p.numel() for p in part.parameters()) == 3136 - 32


@torch.no_grad()
def test_it_computes_what_adapterhub_s_layer_computes():
    """Query, key and value of its state dict, by its formula: key bias and all."""
    made = model()
    part = parts(made)[0]
    y, d = toy.speech(seed=1), [toy.speech(seed=2), toy.speech(seed=3)]
    bias = torch.randn(toy.DIM)
    part.value += 0.1 * torch.randn(toy.DIM, toy.DIM)
    key = torch.stack(d, 2) @ part.key.weight.T + bias
    scores = (part.query(y)[:, :, None] * key).sum(-1)
    value = torch.stack(d, 2) @ part.value.T
    published = y + (scores.softmax(-1)[..., None] * value).sum(2)
    torch.testing.assert_close(part(y, y, [y + one for one in d], Context()), published)


def test_padding_has_no_part_in_what_a_clip_chooses_nor_in_the_guide():
    made = model(by="clip", guide=1.0, dropout=0.0)
    life = made.methods["fuse"].lifecycle(made, "fuse")
    sound = torch.tensor([[True, True, True, False, False], [True] * 5])
    ctx, x = Context(sound=sound, task=torch.tensor([0, -1])), toy.speech()
    terms = []
    with torch.no_grad():  # in the toy itself frames attend to each other, so each mixer is asked by itself
        for noise in (0.0, 9.0):
            x[0, 3:] += noise
            life.before_forward(0)
            for part in parts(made):
                y = part(x, x, [x.sin(), x.cos()], ctx)
            terms.append((y[0, :3], *life.extra_losses(0, Outcome(x.sum()), _never).values()))
            terms[-1] += (torch.tensor(life.numbers()["entropy"]),)
    for now, noisy in zip(*terms, strict=True):
        torch.testing.assert_close(now, noisy)


def test_the_guide_leads_to_the_adapter_that_is_named_and_clips_without_a_name_count_for_nothing():
    made = model(guide=1.0, dropout=0.0)
    made.trainable("fuse")
    life = made.methods["fuse"].lifecycle(made, "fuse")
    optimiser = torch.optim.Adam(made.parameters_of("fuse"), 0.01)
    ctx = context_of(made.methods.values(), {"task": ["far", ""], "language": ["en", ""]})
    assert ctx.task is not None
    assert ctx.task.tolist() == [1, -1]
    assert ctx.language is None
    losses = []
    for step in range(30):
        life.before_forward(step)
        outcome = Outcome(made(toy.speech(), ctx=ctx).sum())
        guide = life.extra_losses(step, outcome, _never)["guide"]
        losses.append(guide.item())
        optimiser.zero_grad()
        guide.backward()
        optimiser.step()
    assert losses[-1] < 0.2 * losses[0]


def _never() -> Outcome:
    raise AssertionError


def test_a_task_that_no_adapter_has_is_refused_with_the_names():
    with pytest.raises(ConfigError, match=r"task: a clip is of 'fra', which no adapter knows.*far"):
        context_of([Fusion(over=TWO, guide=1.0)], {"task": ["fra"]})


def test_where_no_site_is_common_the_model_is_refused():
    apart = {
        "tel": Bottleneck(width=4, sites=("layers.0.ffn",)),
        "far": Bottleneck(width=4, sites=("layers.1.ffn",)),
    }
    with pytest.raises(ConfigError, match=r"'fuse': there is no site where all of tel, far sit"):
        AdaptedModel(toy.toy(), toy.sites(), {**apart, "fuse": Fusion(over=TWO)})
    with pytest.raises(
        ConfigError, match=r"layers.0.ffn: mixer 'fuse' is over 'far', which does not sit there"
    ):
        AdaptedModel(toy.toy(), toy.sites(), {"fuse": Fusion(over=TWO, sites=("layers.0.ffn",)), **apart})
    with pytest.raises(ConfigError, match=r"mixer 'fuse' is over 'fat', and no.*'far'"):
        AdaptedModel(toy.toy(), toy.sites(), {"fuse": Fusion(over=("tel", "fat")), **apart})


def test_a_run_of_two_phases_saves_a_fusion_that_opens_with_its_adapters_or_not_at_all(tmp_path, monkeypatch):
    from speech_peft.backbones import families
    from speech_peft.opening import loading

    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()
    monkeypatch.setattr(loading, "open_backbone", families.open_backbone)
    expert = {"method": "bottleneck", "width": 4, "sites": ["layers.*.ffn"], "zero_up": False}
    first = tiny.run(
        tiny.recipe(tmp_path, adapters={"tel": expert, "far": expert}, out=str(tmp_path / "first"))
    )
    held = {folder.name: (folder / "adapter.safetensors").read_bytes() for folder in first.folders}
    saved = {name: {"from": str(tmp_path / "first" / name)} for name in TWO}
    fuse = {"method": "fusion", "over": list(TWO)}
    recipe = tiny.recipe(
        tmp_path, adapters={**saved, "fuse": fuse}, out=str(tmp_path / "second"), trainer={"max_steps": 2}
    )
    (folder,) = tiny.run(recipe).folders
    rows = [json.loads(line) for line in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[0]["fuse_entropy"] <= 0.6932
    card = json.loads((folder / "adapter.json").read_text())
    assert card["format"] == 3
    assert list(card["experts"]) == list(TWO)
    opened = loading.load(folder)
    assert opened.runs == ("adapter_0", "adapter", "adapter_2"), "in the order of the recipe: far, fuse, tel"
    assert opened.model.methods["adapter"].over == ("adapter_2", "adapter_0")
    assert {f.name: (f / "adapter.safetensors").read_bytes() for f in first.folders} == held
    other = tmp_path / "first" / "far" / "adapter.safetensors"
    other.write_bytes((tmp_path / "first" / "tel" / "adapter.safetensors").read_bytes())
    with pytest.raises(
        ConfigError, match=r"was trained over 'far' of sha256 [0-9a-f]{12}…, and .*far is another"
    ):
        loading.load(folder)


def test_a_fusion_that_is_saved_takes_its_adapters_with_it(tmp_path):
    import speech_peft as sp
    from speech_peft.backbones.families import tiny as tiny_backbone

    whisper = tiny_backbone("whisper").module
    expert = Bottleneck(width=4, sites=("layers.*.ffn",), zero_up=False)
    made = sp.adapt(whisper, {"tel": expert, "far": expert, "fuse": Fusion(over=TWO)})
    folder = made.save(tmp_path / "mine", "fuse")
    whisper = made.detach()
    again = sp.load(folder, base=whisper)
    assert again.active == ("tel", "far", "mine")
    assert again.methods["mine"].over == TWO
    for old, new in zip(made.parameters_of("fuse"), again.parameters_of("mine"), strict=True):
        assert torch.equal(old, new)


def test_an_adapter_of_the_same_kind_takes_the_place_of_another_and_no_other_does(tmp_path):
    import speech_peft as sp
    from speech_peft.backbones.families import tiny as tiny_backbone

    expert = Bottleneck(width=4, sites=("layers.*.ffn",), zero_up=False)
    others = {"tel": expert, "far": expert, "wide": Bottleneck(width=5, sites=("layers.*.ffn",))}
    made = sp.adapt(tiny_backbone("whisper").module, others)
    folders = {name: made.save(tmp_path / name, name) for name in others}
    held = [p.clone() for p in made.parameters_of("tel")]
    with pytest.raises(ConfigError, match="wide has other settings than 'tel'"):
        made.swap("tel", folders["wide"])
    assert all(map(torch.equal, held, made.parameters_of("tel")))
    parts = made.parameters_of("tel")
    made.swap("tel", folders["far"])
    assert all(new is old for new, old in zip(made.parameters_of("tel"), parts, strict=True)), "in place"
    assert all(map(torch.equal, made.parameters_of("far"), made.parameters_of("tel")))
    mixed = sp.adapt(made.detach(), {"tel": expert, "far": expert, "fuse": Fusion(over=TWO)})
    with pytest.raises(ConfigError, match="'fuse' was trained over it"):
        mixed.swap("tel", folders["far"])
