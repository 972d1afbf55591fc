"""Rows: which adapters run may differ from clip to clip, and each clip is as in a batch of its own."""

import pytest
import torch

from speech_peft.core.context import Context
from speech_peft.core.current import going_on_with
from speech_peft.core.model import AdaptedModel
from speech_peft.core.passage import by_row, port
from speech_peft.core.rows import Rows
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.coda import Coda
from speech_peft.methods.fusion import Fusion
from speech_peft.methods.lora import Lora
from speech_peft.methods.pissa import Pissa
from tests import toy

from .test_port import Task
from .test_streams import Streams

LINEAR = {"a": Lora(rank=2), "b": Lora(rank=5, alpha=3.0, bias=True), "c": Pissa(rank=3)}
OTHERS = {
    "a": Bottleneck(width=4, zero_up=False),
    "b": Bottleneck(width=3, form="series_input", zero_up=False, sites=("*.ffn.up",)),
    "c": Bottleneck(width=2, form="series", zero_up=False),
}
MIXED = {"a": OTHERS["a"], "b": Bottleneck(width=3, zero_up=False), "c": Fusion(over=("a", "b"), rank=2)}
ROWS = ("a", "b", None, ("a", "c"), "c", ("c", "b"), "a")
FEWER = ("a", "b", None, "c", "c", "b", "a")


def model(methods) -> AdaptedModel:
    torch.manual_seed(0)
    made = AdaptedModel(toy.toy(), toy.sites(), methods).eval()
    with torch.no_grad():
        for name in methods:
            for parameter in made.parameters_of(name):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def one_by_one(made: AdaptedModel, rows, x, ctx: Context | None = None) -> torch.Tensor:
    each = []
    for i, row in enumerate(rows):
        with made.using(*((row,) if isinstance(row, str) else row or ())):
            mine = None if ctx is None else ctx.picked(torch.tensor([i]))
            each.append(made(x[i : i + 1], ctx=mine))
    return torch.cat(each)


@pytest.mark.parametrize(
    ("methods", "rows"),
    [(LINEAR, ROWS), (OTHERS, ROWS), (MIXED, FEWER), ({**OTHERS, "a": Lora(rank=2)}, ROWS)],
)
@torch.no_grad()
def test_each_row_is_what_it_is_by_itself(methods, rows):
    made, x = model(methods), toy.speech(len(rows))
    alone = one_by_one(made, rows, x)
    with made.using_rows(*rows):
        torch.testing.assert_close(made(x), alone, atol=1e-5, rtol=1e-5)
    with made.using():
        bare = made(x)
    for i, row in enumerate(rows):
        assert torch.equal(alone[i], bare[i]) == (row is None)


@torch.no_grad()
def test_adapters_of_low_rank_run_as_one_product_and_others_do_not(monkeypatch):
    products = []

    def noted(turns, x, y):
        products.append(len(turns))
        return by_row.one_product(turns, x, y)

    monkeypatch.setattr(port, "one_product", noted)
    for methods in (LINEAR, OTHERS):
        with (made := model(methods)).using_rows("a", "b", "c", "a"):
            made(toy.speech(4))
    assert products == [1] * 4, "query and value of two blocks"


@torch.no_grad()
def test_matrices_that_are_kept_follow_what_is_learned_loaded_or_placed():
    lora = {"a": Lora(rank=2), "b": Lora(rank=3)}
    made, rows, x = model(lora), ("a", "b"), toy.speech(2)
    for change in (
        lambda: None,
        lambda: [p.add_(0.1) for p in made.parameters_of("a")],
        lambda: made.adapters.double().float(),
        lambda: [p.mul_(2) for p in made.parameters_of("b")],
    ):
        change()
        with made.using_rows(*rows):
            torch.testing.assert_close(made(x), one_by_one(made, rows, x))
    with made.using_rows("b", "a"):
        torch.testing.assert_close(made(x), one_by_one(made, ("b", "a"), x))


def test_gradients_of_a_mixed_batch_are_those_of_its_rows_also_when_it_is_computed_again():
    rows, x = ("a", "b", "a", None), toy.speech(4)
    made = model(OTHERS)
    one_by_one(made, rows, x).square().sum().backward()
    wanted = [p.grad.clone() for p in made.parameters_of("a")]
    for again in (False, True):
        made.zero_grad()
        if again:
            made.recompute()
        with made.using_rows(*rows):
            out = made(x)
        made.activate("c")
        out.square().sum().backward()
        for p, grad in zip(made.parameters_of("a"), wanted, strict=True):
            torch.testing.assert_close(p.grad, grad, atol=1e-4, rtol=1e-4)
        made.activate("a", "b", "c")


@torch.no_grad()
def test_the_context_of_a_row_goes_with_it():
    made, x, rows = model({"a": Task(), "b": OTHERS["a"]}), toy.speech(4), ("a", "b", "a", None)
    ctx = Context(task=torch.tensor([0, 1, 1, 0]))
    alone = one_by_one(made, rows, x, ctx)
    with made.context(ctx), made.using_rows(*rows):
        torch.testing.assert_close(made(x), alone)


@torch.no_grad()
def test_beams_dropped_rows_and_rows_in_another_order_keep_their_adapters():
    made, x = model(OTHERS), toy.speech(3)
    with made.using_rows("a", None, "b"):
        whole = made(x)
        beams = made(x.repeat_interleave(4, 0))
        torch.testing.assert_close(beams, whole.repeat_interleave(4, 0))
        left = torch.tensor([2, 0])
        with going_on_with(made.base, left):
            torch.testing.assert_close(made.base(x[left]), whole[left])
        with pytest.raises(ConfigError, match="a batch of 2 rows passes, and the context speaks of 3 clips"):
            made(x[:2])


def test_rows_that_are_alike_cost_nothing():
    made = model(OTHERS)
    with made.using_rows("a", ("a",)):
        assert made.active == ("a",)
        assert made.current.ctx.rows is None
    assert Rows((("a",), ("b", "a"))).all == ("a", "b")


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (Coda(width=4, preset="ffn"), "a coda, chooses the frames"),
        (Streams(), "a thrice, runs the batch several"),
    ],
)
def test_what_cannot_run_for_some_rows_is_refused_by_name(method, why):
    made = AdaptedModel(toy.toy(), toy.sites(), {"a": method, "b": OTHERS["a"]})
    with pytest.raises(ConfigError, match=rf"adapter 'a', {why}"), made.using_rows("a", "b"):
        pass
