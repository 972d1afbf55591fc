"""Parameters from elsewhere: made once for a pass and a site, and each row is run with its own."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from speech_peft.core.context import Context
from speech_peft.core.keyed import functional
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.hyper import Hyper
from tests import toy

IDS = Context(language=torch.tensor([1, 0, 1]))


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """How many sets were made, each time any were."""
    made: list[int] = []
    own = functional._made

    def noted(ids, make):
        def counted(ids: Tensor) -> Mapping[str, Tensor]:
            made.append(len(ids))
            return make(ids)

        return own(ids, counted)

    monkeypatch.setattr(functional, "_made", noted)
    return made


def model() -> AdaptedModel:
    torch.manual_seed(0)
    hyper = Hyper(names=("cs", "nl"), width=3, vector=4, hidden=8, paper_start=True)
    return AdaptedModel(toy.toy(), toy.sites(), {"hyper": hyper}).eval()


def gradients(model: AdaptedModel) -> list[Tensor]:
    model.trainable("hyper")
    model.zero_grad()
    loss = model(toy.speech(3), ctx=IDS).square().sum()
    with torch.no_grad(), model.using():
        model(toy.speech(3))
    model(toy.speech(3), ctx=Context(language=torch.tensor([0, 0, 0])))  # the next batch
    loss.backward()
    return [p.grad.clone() for p in model.parameters_of("hyper")]


def test_in_a_block_that_runs_twice_they_are_made_once_and_learn_the_same(written):
    once, twice = model(), model()
    wanted = gradients(once)
    assert written == [2, 2, 1, 1], "two languages, then one, at two sites"
    twice.recompute()
    for grad, other in zip(gradients(twice), wanted, strict=True):
        torch.testing.assert_close(grad, other)
    assert written == [2, 2, 1, 1] * 2


@torch.no_grad()
def test_while_nobody_learns_they_are_kept_until_something_changes(written):
    made, x = model(), toy.speech(3)
    first = made(x, ctx=IDS)
    assert torch.equal(made(x, ctx=IDS), first)
    assert written == [2, 2]
    made(x, ctx=Context(language=torch.tensor([1, 1, 1])))
    assert written == [2, 2, 1, 1], "other languages"
    made(x, ctx=IDS)
    next(iter(made.parameters_of("hyper"))).add_(1.0)
    assert not torch.equal(made(x, ctx=IDS), first)
    assert written == [2, 2, 1, 1] + [2, 2] * 2, "other numbers"


@torch.no_grad()
def test_each_row_runs_with_its_own_parameters():
    torch.manual_seed(0)
    site = Site("layers.0.ffn", "ffn", "a", "a", 6, 6)
    parts = [
        Bottleneck(width=2, norm=True, zero_up=False).build(site, torch.nn.Identity(), None) for _ in "ab"
    ]
    x, y = torch.randn(3, 4, 6), torch.randn(3, 4, 6)
    alike = zip(*(part.named_parameters() for part in parts), strict=True)
    state = {name: torch.stack([one, other]) for (name, one), (_, other) in alike}
    with torch.device("meta"):
        shell = Bottleneck(width=2, norm=True).build(site, torch.nn.Identity(), None)
    found = functional.run(shell, functional.Made(state, torch.tensor([1, 0, 1])), x, y)
    for i, who in enumerate((1, 0, 1)):
        torch.testing.assert_close(found[i], parts[who](x[i : i + 1], y[i : i + 1], Context())[0])
