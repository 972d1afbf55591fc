"""Facts of the parallel attention: the sum it is, to whom it listens, what silences it, what it costs."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from speech_peft.backbones.base import Backbone, Features
from speech_peft.backbones.families import tiny
from speech_peft.core.adapter import Adapter
from speech_peft.core.context import Context
from speech_peft.core.describe import count
from speech_peft.core.listening.reference import Reference
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site, resolve
from speech_peft.errors import ConfigError
from speech_peft.methods.attention import Attention
from speech_peft.methods.lora import Lora
from speech_peft.opening.enrolment import enrolled
from speech_peft.opening.microphones import recorded
from tests.contract.laws import fill


def opened(**methods) -> tuple[Backbone, Features, AdaptedModel]:
    backbone = tiny("whisper", context="fit")
    features = backbone.prepare(0.1 * torch.randn(2, 8000), torch.tensor([8000, 6400]))
    model = AdaptedModel(backbone.module, backbone.sites(), methods).eval()
    for name in methods:
        fill(model, name, 0)
    return backbone, features, model


def part(model: AdaptedModel, name: str = "a") -> tuple[Adapter, Site]:
    site = model.sites[name][0]
    found = model.at(name, site)
    assert isinstance(found, Adapter)
    return found, site


def written_out(model: AdaptedModel, x: Tensor, z: Tensor) -> Tensor:
    """What the heads of a low-rank copy find in one recording, from the frozen weights and the factors."""
    adapter, site = part(model)
    q, k, v = (resolve(model.base, f"{site.exit}.{n}_proj") for n in "qkv")
    a, b = (adapter.get_parameter(f"query.{n}") for n in "ab")
    query = q(x) + linear(linear(x, a), b)
    query, key, value = (y.unflatten(-1, (2, -1)).transpose(1, 2) for y in (query, k(z), v(z)))
    found = (query @ key.mT / key.shape[-1] ** 0.5).softmax(-1) @ value
    a, b = (adapter.get_parameter(f"out.{n}") for n in "ab")
    return linear(linear(found.transpose(1, 2).flatten(2), a), b)


@torch.no_grad()
def test_it_adds_what_frozen_keys_of_the_reference_give_to_each_row_s_own_query():
    _, _, model = opened(a=Attention(rank=3))
    adapter, site = part(model)
    x, y, states = torch.randn(3, 7, 32), torch.randn(3, 7, 32), torch.randn(2, 5, 32)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    ctx = Context(reference=Reference({site.name: states}, mask, torch.tensor([1, 0, 1])))
    found = adapter(x, y, ctx) - y
    torch.testing.assert_close(found[1:2], written_out(model, x[1:2], states[:1]))
    torch.testing.assert_close(found[::2], written_out(model, x[::2], states[1:, :2].expand(2, -1, -1)))


@torch.no_grad()
def test_without_a_reference_or_with_a_silent_one_it_changes_not_one_bit():
    backbone, features, model = opened(a=Attention(rank=3))
    with model.using():
        bare = backbone.encode(features).states
    noise = 0.1 * torch.randn(2, 8000)
    for silent in (torch.zeros(2, 8000), 1e-4 * noise):
        ctx = Context(reference=enrolled(model, backbone, silent, torch.tensor([8000, 0])))
        assert torch.equal(backbone.encode(features, ctx).states, bare)
    assert torch.equal(backbone.encode(features).states, bare)
    heard = Context(reference=enrolled(model, backbone, noise, torch.tensor([8000, 0])))
    states = backbone.encode(features, heard).states
    assert not torch.equal(states[0], bare[0])
    assert torch.equal(states[1], bare[1])


@torch.no_grad()
def test_a_reference_is_heard_by_the_frozen_model_whatever_adapters_run():
    backbone, _, model = opened(a=Attention(rank=3), domain=Lora(sites=("layers.*.attn.[qkvo]",)))
    audio, lengths = 0.1 * torch.randn(1, 8000), torch.tensor([8000])
    model.activate("a")
    alone = enrolled(model, backbone, audio, lengths)
    model.activate("a", "domain")
    assert all(
        torch.equal(x, alone.at(n)) for n, x in enrolled(model, backbone, audio, lengths).states.items()
    )


@torch.no_grad()
def test_silence_between_the_words_of_a_reference_is_not_listened_to():
    backbone, _, model = opened(a=Attention(rank=3))
    audio = 0.1 * torch.randn(1, 16000)
    audio[:, 4000:8000] = 0
    mask = enrolled(model, backbone, audio, torch.tensor([12000])).mask[0]
    frames = [bool(mask[t]) for t in (3, 18, 30, 45)]
    assert frames == [True, False, True, False]


@torch.no_grad()
def test_one_recording_for_every_row_is_the_same_as_one_for_each():
    backbone, features, model = opened(a=Attention(rank=3))
    one = enrolled(model, backbone, 0.1 * torch.randn(1, 8000), torch.tensor([8000]))
    every = Reference(one.states, one.mask)
    each = Reference(one.states, one.mask, torch.tensor([0, 0]))
    states = [backbone.encode(features, Context(reference=r)).states for r in (every, each)]
    assert torch.equal(*states)


@torch.no_grad()
@pytest.mark.parametrize("window", [0, 1])
def test_a_frame_hears_all_microphones_as_far_as_the_window_and_no_further(window):
    _, _, model = opened(a=Attention(keys="copy:views", rank=3, window=window))
    adapter, _ = part(model)
    x, y = torch.randn(4, 9, 32), torch.zeros(4, 9, 32)
    other = x.clone()
    other[1, 4] += 1  # a frame of the second microphone of the first recording
    moved = (adapter(x, y, Context(views=2)) - adapter(other, y, Context(views=2))).abs().amax(-1) > 1e-6
    heard = torch.zeros(4, 9, dtype=torch.bool)
    heard[:2, 4 - window : 5 + window] = True
    assert torch.equal(moved, heard)


@torch.no_grad()
def test_the_widest_window_is_no_window():
    _, _, model = opened(a=Attention(keys="views", rank=3), b=Attention(keys="views", rank=3, window=8))
    (a, _), (b, _) = part(model), part(model, "b")
    b.load_state_dict(a.state_dict())
    x, y = torch.randn(6, 9, 32), torch.zeros(6, 9, 32)
    sound = torch.arange(9)[None] < torch.tensor([9, 9, 8, 5, 6, 9])[:, None]
    ctx = Context(views=3, sound=sound)
    torch.testing.assert_close(a(x, y, ctx), b(x, y, ctx))


@torch.no_grad()
def test_rows_that_are_no_whole_recordings_are_refused_with_the_site():
    _, _, model = opened(a=Attention(keys="views", rank=3))
    adapter, site = part(model)
    with pytest.raises(ConfigError, match=rf"{site.name}: 3 rows are no recordings of 2 channels"):
        adapter(torch.randn(3, 5, 32), torch.zeros(3, 5, 32), Context(views=2))


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({"rank": None}, 2 * 32 * 32),
        ({"rank": None, "keys": "views"}, 4 * 32 * 32),
        ({"rank": None, "query": "frozen", "keys": "new:tokens", "out": "frozen"}, 2 * 32 * 32),
        ({"rank": 4}, 2 * 4 * (32 + 32)),
    ],
)
def test_it_counts_the_whole_matrices_of_the_papers_or_two_factors_of_each(settings, numbers):
    _, _, model = opened(a=Attention(**settings))
    assert count(model.parameters_of("a")) == numbers * len(model.sites["a"])


def test_what_would_be_heard_at_once_or_by_nobody_is_refused():
    for settings, reason in [
        ({"out": "frozen"}, "would be heard at once"),
        ({"window": 2}, "only views have one"),
        ({"tokens": 2}, "only for keys=new:tokens"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            Attention(**settings)


def test_an_attention_whose_projections_lie_elsewhere_is_refused_with_the_site():
    backbone = tiny("usm")
    with pytest.raises(ConfigError, match=r"those of layers\.0\.attn do not lie side by side"):
        AdaptedModel(backbone.module, backbone.sites(), {"a": Attention()})


@torch.no_grad()
def test_a_reference_that_was_not_noted_at_a_site_is_refused_by_its_name():
    backbone, features, _ = opened(a=Attention(sites=("layers.1.attn",)))
    ctx = Context(reference=Reference({"layers.0.attn": torch.zeros(1, 3, 32)}, torch.ones(1, 3).bool()))
    with pytest.raises(ConfigError, match=r"layers\.1\.attn: the reference was noted at layers\.0\.attn"):
        backbone.encode(features, ctx)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 1])
def test_microphones_in_another_order_give_the_same_states_in_that_order(window):
    _, _, model = opened(a=Attention(keys="views", rank=3, window=window))
    adapter, _ = part(model)
    x, y = torch.randn(3, 9, 32), torch.randn(3, 9, 32)
    sound = torch.arange(9)[None] < torch.tensor([9, 7, 4])[:, None]
    order = torch.tensor([2, 0, 1])
    given = adapter(x, y, Context(views=3, sound=sound))
    turned = adapter(x[order], y[order], Context(views=3, sound=sound[order]))
    torch.testing.assert_close(turned, given[order])
    assert (given - y).abs().amin((1, 2)).max() > 0


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 1])
def test_a_microphone_that_recorded_nothing_is_as_if_it_were_not_there(window):
    backbone, _, model = opened(a=Attention(keys="views", rank=3, window=window))
    audio = 0.1 * torch.randn(4, 8000)

    def states(rows: list[int], lengths: list[int]) -> Tensor:
        features = backbone.prepare(audio[rows], torch.tensor(lengths))
        features = recorded(features, torch.tensor(lengths))
        return backbone.encode(features, Context(views=len(rows))).states

    three = states([0, 1, 2], [8000, 8000, 8000])
    torch.testing.assert_close(states([0, 1, 3, 2], [8000, 8000, 0, 8000])[[0, 1, 3]], three)
    left, alone = states([3, 0], [0, 8000]), states([0], [8000])
    with model.using():
        assert torch.equal(states([3, 0], [0, 8000]), left)
        assert torch.equal(states([0], [8000]), alone)


@torch.no_grad()
def test_recordings_of_one_batch_are_heard_as_each_by_itself():
    backbone, _, model = opened(a=Attention(keys="views", rank=3, window=2))
    audio, lengths = 0.1 * torch.randn(6, 8000), torch.full((6,), 8000)
    states = backbone.encode(backbone.prepare(audio, lengths), Context(views=3)).states
    for rows in (slice(0, 3), slice(3, 6)):
        one = backbone.prepare(audio[rows], lengths[rows])
        torch.testing.assert_close(backbone.encode(one, Context(views=3)).states, states[rows])
    with model.using():
        assert (backbone.encode(backbone.prepare(audio, lengths)).states - states).abs().max() > 1e-3
