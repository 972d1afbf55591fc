"""Frames that are left out of a frozen span: who works, who passes by, and what is known inside."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from speech_peft.backbones.families import tiny
from speech_peft.core.adapter import Adapter
from speech_peft.core.attention import attend
from speech_peft.core.context import Context
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.selection import Selection
from speech_peft.core.site import Kind, Site
from speech_peft.errors import ConfigError
from speech_peft.methods.coda import Coda
from speech_peft.methods.convpass import Convpass
from tests import toy

FRAMES = torch.tensor([[0, 3], [1, 4]])


class Some(Adapter):
    """Selects FRAMES, the second with half its weight."""

    def select(self, x: Tensor, ctx: Context) -> Selection:
        return Selection(FRAMES, torch.tensor([[1, 0.5], [1, 0.5]]), residual=False)

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        assert x.shape[1] == y.shape[1] == 5
        assert ctx.mask is None or ctx.mask.shape == (2, 5)
        return y


class Selects(Method):
    name: ClassVar[str] = "selects"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"ffn"})
    sites: tuple[str, ...] = ("layers.1.ffn",)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return Some()


class Spy(Adapter):
    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        self.seen = x.shape, ctx.mask
        return y


class Spies(Selects):
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})
    sites: tuple[str, ...] = ("layers.1.ffn.up",)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return Spy()


def test_a_block_s_update_is_weighed_and_other_frames_pass_as_they_were():
    x, update = toy.speech(), toy.speech(seed=1)
    some = Selection(FRAMES, torch.tensor([[1, 0.25], [1, 0.25]]), residual=True)
    y = some.put_back(x, some.take(x + update))
    for clip, (first, second) in enumerate(FRAMES.tolist()):
        torch.testing.assert_close(y[clip, first], (x + update)[clip, first])
        torch.testing.assert_close(y[clip, second], (x + 0.25 * update)[clip, second])
        rest = [t for t in range(5) if t not in (first, second)]
        assert torch.equal(y[clip, rest], x[clip, rest])


@torch.no_grad()
def test_only_selected_frames_pass_the_frozen_modules_and_the_context_fits_them():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Selects(), "spy": Spies()})
    mask = torch.tensor([[True] * 5, [True, True, True, True, False]])
    with model.context(Context(mask=mask)):
        y = model(toy.speech())
        assert model.current.ctx.mask is mask, "outside it is what it was"
    shape, seen = model.at("spy", model.sites["spy"][0]).seen
    assert shape == (2, 2, toy.DIM)
    assert seen.tolist() == [[True, True], [True, False]]
    with model.using():
        x = model.base.layers[0](toy.speech())[0]
        dense = model.base.layers[1](x)[0]
    assert torch.allclose(y[0, 0], dense[0, 0], atol=1e-6)
    assert not torch.allclose(y[0, 1], dense[0, 1], atol=1e-3), "frame 1 got no feed-forward"


def test_two_adapters_that_select_are_refused_by_the_site():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Selects(), "b": Selects()})
    with pytest.raises(ConfigError, match=r"layers\.1\.ffn: adapter 'b' and another both select frames"):
        model(toy.speech())
    with model.using("b"):
        model(toy.speech())


def test_closed_keys_are_those_that_are_not_there():
    q, k, v = (torch.randn(2, 2, n, 4) for n in (3, 5, 5))
    attended = torch.tensor([[True] * 5, [True, True, False, True, False]])
    module = nn.Module()
    module.is_causal = False
    more = (torch.randn(2, 2, 8), torch.randn(2, 2, 8))
    for given in (None, torch.zeros(2, 1, 3, 5), torch.ones(2, 1, 3, 5, dtype=torch.bool)):
        found = attend("sdpa", module, q, k, v, given, added_keys_values=more, attended_keys=attended)[0]
        kept = attended[1]
        alone = attend(
            "sdpa", module, q[1:], k[1:, :, kept], v[1:, :, kept], None,
            added_keys_values=(more[0][1:], more[1][1:]),
        )[0]  # fmt: skip
        torch.testing.assert_close(found[1:], alone)


class Average(Adapter):
    """Adds the mean of the frames that count, which whoever reads across frames does in some way."""

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        counted = torch.ones_like(y[..., :1]) if ctx.mask is None else ctx.mask[..., None].to(y.dtype)
        return y + (x * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True)


class Averages(Spies):
    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return Average()


@torch.no_grad()
def test_what_only_fills_up_a_batch_counts_for_nobody():
    backbone = tiny("whisper", context="fit")
    methods = {"some": Coda(width=4), "average": Averages(sites=("layers.*.attn.v",))}
    AdaptedModel(backbone.module, backbone.sites(), methods)
    audio = 0.1 * torch.randn(2, 16000)
    for lengths in ([16000, 5000], [16000, 1600]):
        batch = backbone.prepare(audio, torch.tensor(lengths))
        alone = backbone.prepare(audio[1:], torch.tensor(lengths[1:]), pad_to=16000)
        together = backbone.encode(batch).states[1]
        torch.testing.assert_close(together, backbone.encode(alone).states[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("coda", "site"), [("block", "attn"), ("block", "ffn"), ("block", "tail")])
def test_who_sees_neighbours_is_not_handed_frames_that_are_none(coda, site):
    backbone = tiny("whisper", context="fit")
    methods = {"some": Coda(width=4, preset=coda), "filter": Convpass(width=4, sites=(f"layers.1.{site}",))}
    model = AdaptedModel(backbone.module, backbone.sites(), methods)
    features = backbone.prepare(torch.randn(2, 8000), torch.tensor([8000, 4000]))
    with pytest.raises(ConfigError, match=rf"layers\.1\.{site}: adapter 'filter' sees neighbouring frames"):
        backbone.encode(features)
    for name in methods:
        with model.using(name):
            backbone.encode(features)


@pytest.mark.parametrize(("preset", "site"), [("block", "block"), ("ffn", "ffn"), ("ffn", "block")])
def test_at_the_site_of_a_selection_or_around_it_all_frames_are_seen(preset, site):
    backbone = tiny("whisper", context="fit")
    filtered = Convpass(width=4, sites=(f"layers.*.{site}",))
    AdaptedModel(
        backbone.module, backbone.sites(), {"some": Coda(width=4, preset=preset), "filter": filtered}
    )
    audio = torch.randn(2, 8000)
    together = backbone.encode(backbone.prepare(audio, torch.tensor([8000, 4000]))).states
    alone = backbone.encode(backbone.prepare(audio[1:], torch.tensor([4000]), pad_to=8000)).states
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_what_sums_up_a_clip_moves_with_the_frames_in_front_of_it():
    ctx = Context(sound=torch.ones(1, 4, dtype=torch.bool), summary=(0, 2)).widened(3)
    assert ctx.summary == (3, 2)
    assert ctx.sound is not None
    assert ctx.sound.shape == (1, 7)
