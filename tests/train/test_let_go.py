"""A task that only hears keeps no decoder in memory, whatever its precision and wherever it was moved."""

import pytest
import torch

from speech_peft.backbones import families
from speech_peft.recipe import config
from speech_peft.train import fit
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def built(tmp_path, decoder, *overrides):
    recipe = config.read(str(tiny.recipe(tmp_path, decoder)), overrides)
    return fit.build(recipe, config.methods_of(recipe))[0]


def held(module: torch.nn.Module) -> int:
    """Bytes behind the parameters."""
    return sum(p.untyped_storage().nbytes() for p in module.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_decoder_that_is_never_called_holds_no_memory_in_any_precision(tmp_path, precision):
    decoder = built(tmp_path, "ctc", f"trainer.precision={precision}").backbone.decoder
    assert held(decoder) <= 8 * len(list(decoder.parameters()))


def test_a_decoder_that_is_called_stays(tmp_path):
    task = built(tmp_path, "whisper")
    assert not task.backbone.let_gone
    assert held(task.backbone.decoder) > 10_000


def test_what_a_move_has_written_out_is_given_back_when_training_starts(tmp_path):
    task = built(tmp_path, "ctc")
    task.to(torch.float64).to(torch.float32)  # as a move to a GPU does
    assert held(task.backbone.decoder) > 10_000
    task.on_train_start()
    assert held(task.backbone.decoder) <= 8 * len(list(task.backbone.decoder.parameters()))
