"""What a run computes in, and devices that are not there."""

import pytest
import torch

from speech_peft.cli import doctor
from speech_peft.errors import ConfigError
from speech_peft.recipe.parts import TrainerConfig
from speech_peft.train import precision


def trainer(**fields) -> TrainerConfig:
    return TrainerConfig.model_validate({"max_steps": 1, "accelerator": "cpu", **fields})


@pytest.mark.parametrize(("native", "wanted"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_on_a_processor_is_bf16_where_it_has_instructions(monkeypatch, capsys, native, wanted):
    monkeypatch.setattr(precision, "bf16_native", lambda gpu: native)
    assert precision.precision_of(trainer(precision="auto")) == wanted
    assert doctor.bf16().state == ("ok" if native else "note")  # one piece of knowledge
    assert not capsys.readouterr().err


@pytest.mark.parametrize("given", ["bf16-mixed", "bf16-true"])
def test_a_slow_choice_is_warned_of_and_kept(monkeypatch, capsys, given):
    monkeypatch.setattr(precision, "bf16_native", lambda gpu: False)
    assert precision.precision_of(trainer(precision=given)) == "bf16-mixed"
    assert "without instructions for bf16" in capsys.readouterr().err
    monkeypatch.setattr(precision, "bf16_native", lambda gpu: True)
    precision.precision_of(trainer(precision=given))
    assert not capsys.readouterr().err


def test_what_torch_says_of_the_processor_is_believed(monkeypatch):
    for found in ({"avx512_bf16": True, "avx2": True}, {"avx512_bf16": False, "avx2": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert precision.bf16_native(gpu=False) is found["avx512_bf16"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accelerator": "gpu"}, r"trainer\.accelerator: gpu is asked for"),
        ({"accelerator": "mps"}, r"trainer\.accelerator: mps is asked for"),
        ({"accelerator": "auto", "devices": 3}, r"trainer\.devices: 3 are asked for, and there are 2 GPUs"),
    ],
)
def test_a_device_that_is_not_there_is_said_before_anything_is_loaded(monkeypatch, fields, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "devices" in fields)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        precision.check_device(trainer(**fields))
