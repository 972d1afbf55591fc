"""Frames that are left out of a frozen span: who works, who passes by, and what is known inside."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speech_peft.core.adapter import Adapter
from speech_peft.core.attention import attend
from speech_peft.core.context import Context
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.selection import Selection
from speech_peft.core.site import Kind, Site
from speech_peft.errors import ConfigError
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

    def stock(module, query, key, value, mask):
        return F.scaled_dot_product_attention(query, key, value, mask)

    more = (torch.randn(2, 2, 8), torch.randn(2, 2, 8))
    for given in (None, torch.zeros(2, 1, 3, 5), torch.ones(2, 1, 3, 5, dtype=torch.bool)):
        found = attend(stock, nn.Identity(), q, k, v, given, added_keys_values=more, attended_keys=attended)
        kept = attended[1]
        alone = attend(
            stock, nn.Identity(), q[1:], k[1:, :, kept], v[1:, :, kept], None,
            added_keys_values=(more[0][1:], more[1][1:]),
        )  # fmt: skip
        torch.testing.assert_close(found[1:], alone)


def test_what_sums_up_a_clip_moves_with_the_frames_in_front_of_it():
    ctx = Context(sound=torch.ones(1, 4, dtype=torch.bool), summary=(0, 2)).widened(3)
    assert ctx.summary == (3, 2)
    assert ctx.sound is not None
    assert ctx.sound.shape == (1, 7)
