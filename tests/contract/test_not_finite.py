"""A loss that is no number: its step changes nothing, and a row of such steps ends the run."""

import json

import pytest
import torch
from safetensors.torch import load_file

from speech_peft.backbones import families
from speech_peft.errors import SpeechPeftError
from speech_peft.train.tasks.asr import Asr
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()


def breaks(monkeypatch, *steps: int, gradient: bool = False) -> None:
    """The loss, or only its gradient, is not a number in these steps."""
    stock = Asr.loss

    def loss(self, batch):
        found = stock(self, batch)
        if self.global_step not in steps or not self.training:
            return found
        zero = (found.total - found.total).sqrt() if gradient else found.total * float("nan")
        return type(found)(found.total + zero, found.targets, found.predicted)

    monkeypatch.setattr(Asr, "loss", loss)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_without_a_finite_loss_or_gradient_is_left_out_and_counted(tmp_path, monkeypatch, gradient):
    path = tiny.recipe(tmp_path)
    tiny.run(path, "trainer.max_steps=2", "optim.schedule=constant", f"out={tmp_path}/before")
    breaks(monkeypatch, 2, 3, gradient=gradient)
    tiny.run(path, "trainer.max_steps=4", "optim.schedule=constant")
    before, after = (load_file(tmp_path / run / "a" / "adapter.safetensors") for run in ("before", "run"))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("left_out") for row in rows] == [None, None, 1, 2]
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_row_of_such_steps_ends_the_run_with_what_to_try_and_without_an_adapter(tmp_path, monkeypatch):
    breaks(monkeypatch, *range(100))
    with pytest.raises(SpeechPeftError, match=r"not finite in 10 steps in a row.*optim\.lr"):
        tiny.run(tiny.recipe(tmp_path), "trainer.max_steps=100")
    assert not (tmp_path / "run" / "a").exists()
