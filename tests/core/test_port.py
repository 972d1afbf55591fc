"""Ports: order, tuples and keywords, the context, precision."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from speech_peft.core.adapter import Adapter
from speech_peft.core.context import Context
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import NESTING, Kind, Site
from speech_peft.errors import ConfigError
from tests import toy

SEEN: list[str] = []


class Noting(Adapter):
    """Writes down when it is called, and adds one to what enters and to what leaves."""

    def __init__(self, label: str):
        super().__init__()
        self.label = label

    def before(self, x: Tensor, ctx: Context) -> Tensor:
        SEEN.append(f"> {self.label}")
        return x + 1

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        SEEN.append(f"< {self.label}")
        return y + 1


class Note(Method):
    name: ClassVar[str] = "note"
    kinds: ClassVar[frozenset[Kind]] = frozenset(NESTING)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return Noting(site.name.removeprefix("layers.1."))


class AddTask(Adapter):
    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        assert ctx.task is not None
        return y + ctx.task[:, None, None]


class Task(Method):
    name: ClassVar[str] = "task"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"block"})
    reads: ClassVar[frozenset[str]] = frozenset({"task"})
    sites: tuple[str, ...] = ("layers.1.block",)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return AddTask()


@pytest.fixture(autouse=True)
def _forget():
    SEEN.clear()


def test_sites_nest_outermost_enter_first_and_leave_last():
    sites = ("layers.1.*", "stack")
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Note(sites=sites)})
    model(toy.speech())
    assert SEEN[:2] == ["> stack", "> block"]
    assert SEEN[-3:] == ["< tail", "< block", "< stack"]
    inner = SEEN[SEEN.index("> tail") :]
    assert inner == [
        "> tail",
        "> ffn",
        "> ffn.up",
        "< ffn.up",
        "> ffn.down",
        "< ffn.down",
        "< ffn",
        *SEEN[-3:],
    ]


def test_adapters_of_one_site_run_in_the_order_of_activation():
    model = AdaptedModel(
        toy.toy(), toy.sites(), {n: Note(sites=("layers.1.attn",)) for n in ("first", "second")}
    )
    for name in ("first", "second"):
        model.at(name, model.sites[name][0]).label = name
    with model.using("second", "first"):
        model(toy.speech())
    assert SEEN == ["> second", "> first", "< second", "< first"]


@pytest.mark.parametrize(
    "site", ["layers.1.attn", "layers.1.block", "layers.1.tail", "layers.1.ffn", "stack"]
)
def test_keywords_tuples_and_spans_are_met(site):
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Note(sites=(site,))})
    with model.using():
        bare = model(toy.speech())
    assert model(toy.speech()).shape == bare.shape
    assert not torch.equal(model(toy.speech()), bare)


def test_a_call_with_no_input_to_be_found_is_refused_by_name():
    class Odd(nn.Module):
        def forward(self, *, noise: Tensor) -> Tensor:
            return noise

    site = Site("layers.0.odd", "block", "0", "0", 1, 1)
    model = AdaptedModel(nn.ModuleList([Odd()]), [site], {"a": Note(sites=("*.odd",))})
    with pytest.raises(ConfigError, match=r"layers\.0\.odd: 0 was called with noise"):
        model.base[0](noise=torch.zeros(1))


def test_the_context_reaches_adapters_and_leaves_with_the_call():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Task()})
    with model.using():
        bare = model(toy.speech())
    assert torch.allclose(
        model(toy.speech(), ctx=Context(task=torch.tensor([0, 2]))) - bare,
        torch.tensor([0.0, 2])[:, None, None],
    )
    with model.context(Context(task=torch.tensor([1, 1]))):
        assert torch.allclose(model.base(toy.speech()), bare + 1)
    with pytest.raises(ConfigError, match=r"layers\.1\.block: adapter 'a' reads Context\.task"):
        model(toy.speech())


def test_the_context_is_restored_after_an_error():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Task()})
    with pytest.raises(RuntimeError), model.context(Context(task=torch.tensor([0, 1]))):
        model(torch.zeros(2, 5, 3))
    assert model.current.ctx == Context()


def test_an_adapter_keeps_its_precision_and_the_base_keeps_its_own():
    seen = []

    class Spy(Adapter):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
            seen.append((x.dtype, y.dtype))
            return y * self.gain

    class Spying(Note):
        def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
            return Spy()

    model = AdaptedModel(toy.toy().bfloat16(), toy.sites(), {"a": Spying(sites=("*.attn", "*.ffn.up"))})
    assert model(toy.speech().bfloat16()).dtype == torch.bfloat16
    assert set(seen) == {(torch.float32, torch.float32)}
