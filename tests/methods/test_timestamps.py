"""Timestamps: what they reach, and what moments are."""

import pytest
import torch
from torch import Tensor

from speech_peft.backbones.families import tiny
from speech_peft.core.context import Context
from speech_peft.core.listening.moments import moments_of
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.errors import ConfigError
from speech_peft.methods.timestamps import Timestamps

SITE = Site("layers.0.block", "block", "b", "b", 6, 6)
FRAMES = 40


def change(moments: Tensor, **settings) -> Tensor:
    """What an adapter that does something adds to zeros."""
    torch.manual_seed(0)
    made = Timestamps(width=4, **settings).build(SITE, torch.nn.Identity(), None)
    torch.nn.init.normal_(made.up.weight)
    y = torch.zeros(len(moments), FRAMES, 6)
    return made(y, y, Context(moments=moments))


def test_an_interval_is_every_frame_that_it_touches_and_all_others_are_minus_one():
    found = moments_of([[(0.3, 0.5), (0.79, 5.0)], []], frames=50, frame_rate=50)
    assert set(found.flatten().tolist()) == {-1.0, 1.0}
    assert found[0].clamp(min=0).nonzero().flatten().tolist() == [*range(15, 25), *range(39, 50)]
    assert (found[1] == -1).all()


@pytest.mark.parametrize(
    "interval", [(-0.1, 1.0), (1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1)]
)
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ConfigError, match="expected seconds"):
        moments_of([[interval]], 10, 50)


def test_a_shift_of_the_moments_shifts_what_is_added():
    early, late = (moments_of([[(a, a + 0.2)]], FRAMES, 50) for a in (0.3, 0.4))
    torch.testing.assert_close(change(late)[:, 5:], change(early)[:, :-5], rtol=0, atol=1e-6)


def test_a_frame_knows_moments_no_further_than_two_convolutions_reach():
    one = moments_of([[(0.4, 0.42)]], FRAMES, 50)
    none = torch.full((1, FRAMES), -1.0)
    differs = (change(one, kernel=5) != change(none, kernel=5)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == list(range(16, 25))


def test_what_moments_do_not_reach_is_silence():
    told = moments_of([[(0.1, 0.3)]], 20, 50)
    whole = moments_of([[(0.1, 0.3)]], FRAMES, 50)
    assert torch.equal(change(told), change(whole))


def test_moments_of_frames_that_are_left_out_or_added_go_with_them():
    ctx = Context(moments=torch.tensor([[1.0, -1.0, 1.0]]))
    assert ctx.widened(2).moments.tolist() == [[-1.0, -1.0, 1.0, -1.0, 1.0]]
    assert ctx.narrowed(torch.tensor([[0, 2, 7]]), None).moments.tolist() == [[1.0, 1.0, -1.0]]
    assert ctx.for_rows(2).moments.tolist() == [[1.0, -1.0, 1.0]] * 2


def test_without_moments_or_at_scale_0_nothing_is_added():
    backbone = tiny("mel_diffusion")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": Timestamps(scale=0.0), "b": Timestamps()})
    for part in model.adapters.values():
        for site in part.values():
            torch.nn.init.normal_(site.up.weight)
    noisy, time, classes = torch.randn(2, FRAMES, 32), torch.tensor([0.3, 0.8]), torch.tensor([0, -1])
    with torch.no_grad():
        with model.using():
            bare = model(noisy, time, classes)
        moments = moments_of([[(0.1, 0.3)], []], FRAMES, 50)
        with model.using("a"):
            assert torch.equal(model(noisy, time, classes, ctx=Context(moments=moments)), bare)
        with model.using("b"):
            assert torch.equal(model(noisy, time, classes), bare)
            assert not torch.equal(model(noisy, time, classes, ctx=Context(moments=moments)), bare)


def test_refused_where_frames_lie_in_bands():
    backbone = tiny("ast")
    with pytest.raises(ConfigError, match="bands"):
        AdaptedModel(backbone.module, backbone.sites(), {"a": Timestamps()})
