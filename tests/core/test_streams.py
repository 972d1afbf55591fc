"""A span whose batch is run several times over: the context and the masks inside follow its rows."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speech_peft.backbones.families import tiny
from speech_peft.backbones.frames import from_outside
from speech_peft.core.adapter import Adapter
from speech_peft.core.attention import attend
from speech_peft.core.context import Context
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Kind, Site
from tests import toy


class Thrice(Adapter):
    def before(self, x: Tensor, ctx: Context) -> Tensor:
        return x.repeat(3, 1, 1)

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return y.unflatten(0, (3, -1)).mean(0)


class Streams(Method):
    name: ClassVar[str] = "thrice"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"stack", "block"})
    sites: tuple[str, ...] = ("stack",)

    @property
    def keeps_batch(self) -> bool:
        return False

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return Thrice()


class AddTask(Adapter):
    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        assert ctx.task is not None
        self.seen = ctx
        return y + ctx.task[:, None, None]


class Task(Streams):
    sites: tuple[str, ...] = ("layers.1.block",)

    @property
    def keeps_batch(self) -> bool:
        return True

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return AddTask()


@torch.no_grad()
def test_what_the_context_says_of_a_clip_it_says_of_all_its_streams():
    model = AdaptedModel(toy.toy(), toy.sites(), {"three": Streams(), "task": Task()})
    ctx = Context(task=torch.tensor([0, 2]), mask=torch.tensor([[True] * 5, [True] * 4 + [False]]))
    with model.context(ctx):
        adapted = model(toy.speech())
        assert model.current.ctx is ctx, "outside it is what it was"
    seen = model.at("task", model.sites["task"][0]).seen
    assert seen.task.tolist() == [0, 2] * 3, "streams are outermost"
    assert seen.mask.shape == (6, 5)
    assert seen.streams == 3
    with model.using():
        bare = model(toy.speech())
    torch.testing.assert_close(adapted - bare, torch.tensor([0.0, 2])[:, None, None].expand_as(bare))


@torch.no_grad()
def test_a_mask_of_the_batch_is_that_of_every_stream():
    q, k, v = (torch.randn(6, 2, 5, 4) for _ in range(3))
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[1, :, :, 3:] = False
    found, _ = attend("sdpa", nn.Identity(), q, k, v, mask)
    for stream in range(3):
        rows = slice(2 * stream, 2 * stream + 2)
        expected = F.scaled_dot_product_attention(q[rows], k[rows], v[rows], mask)
        torch.testing.assert_close(found[rows], expected.transpose(1, 2))


def test_spans_nest_by_where_they_begin_and_from_each_block_there_is_one():
    backbone = tiny("whisper", context="fit")
    names = [site.name for site in backbone.sites() if site.kind == "stack"]
    assert names == ["stack", "layers.1.stack", "decoder.stack", "decoder.layers.1.stack"]
    rows: list[int] = []
    # Activated inner first: the order in which they nest is that of the model.
    methods = {"inner": Streams(sites=("layers.1.stack",)), "outer": Streams()}
    AdaptedModel(backbone.module, backbone.sites(), methods)
    for block in backbone.blocks:
        block.fc1.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    features = backbone.prepare(0.1 * torch.randn(2, 8000), torch.tensor([8000, 6400]))
    with torch.no_grad():
        assert len(backbone.encode(features).states) == 2
    assert rows == [6, 18]


def test_states_between_blocks_are_given_without_added_frames_and_as_the_mean_of_streams():
    entered = torch.randn(2, 5, 4)
    inside = torch.cat((entered, 3 * entered))
    torch.testing.assert_close(from_outside(inside, entered), 2 * entered)
    assert torch.equal(from_outside(torch.cat((entered[:, :2], entered), 1), entered), entered)


@torch.no_grad()
def test_blocks_that_run_one_by_one_share_the_inside_of_their_span():
    backbone = tiny("conformer", family="wav2vec2-bert")  # its encoder brings a mask of its own
    model = AdaptedModel(backbone.module, backbone.sites(), {"task": Task(sites=("layers.*.block",))})
    features = backbone.prepare(0.1 * torch.randn(2, 8000), torch.tensor([8000, 6400]))
    with model.context(Context(task=torch.tensor([0, 1]))):
        *_, last = backbone.encode_layers(features)
        torch.testing.assert_close(last, backbone.encode(features).states)
        assert model.current.ctx.mask is None
