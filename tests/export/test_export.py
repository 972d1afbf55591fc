"""`speech-peft export` as a user meets it, on a tiny random Whisper."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from speech_peft.backbones.families import open_backbone, tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import write
from speech_peft.export import formats
from speech_peft.export.__main__ import main
from speech_peft.registry import METHODS


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    backbone: Any = tiny("whisper")
    backbone.module.save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"is_multilingual": false}')
    backbone.tokenizer.save_pretrained(folder)
    return folder


def adapter(weights: Path, folder: Path, method: str = "lora", **settings: Any) -> str:
    backbone = open_backbone("whisper", weights, context="fit")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": METHODS[method](**settings)})
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.normal_(std=0.3)
    return str(write(folder, model, "a", backbone.card()))


def test_what_is_written_is_checked_against_base_and_adapter_unmerged(weights, tmp_path, capsys):
    lora = adapter(weights, tmp_path / "lora", rank=4, bias=True, sites=("*.attn.[qkvo]", "*.ffn.*"))
    assert main([lora, "-o", str(tmp_path / "out"), "--to", "hf", "--check"]) == 0
    output = capsys.readouterr().out
    assert 'transformers.pipeline("automatic-speech-recognition"' in output
    assert "note: trained at the length of the audio" in output
    assert "check: logits of transformers are off by at most" in output


def test_weights_that_are_off_are_told_by_the_exit_code(weights, tmp_path, capsys, monkeypatch):
    """What a merge that does nothing writes is the base."""
    monkeypatch.setattr("speech_peft.export.hf.merged", lambda opened: deepcopy(opened.model.detach()))
    lora = adapter(weights, tmp_path / "lora", rank=4)
    assert main([lora, "-o", str(tmp_path / "out"), "--to", "hf", "--check"]) == 1
    assert "beyond 0.001" in capsys.readouterr().out


def test_weights_without_an_adapter_are_exported_by_their_address(weights, tmp_path):
    assert main([str(weights), "-o", str(tmp_path / "out"), "--to", "ggml"]) == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["ggml-model.bin"]


def test_numbers_are_of_the_type_that_is_asked_for_and_the_base_keeps_its_own(weights, tmp_path):
    assert main([str(weights), "-o", str(tmp_path / "out"), "--to", "hf", "--dtype", "float16"]) == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize("to", ["hf", "ct2", "ggml", "onnx"])
def test_what_does_not_merge_is_refused_by_name_with_what_to_do(to, weights, tmp_path, capsys):
    if to == "ct2":
        pytest.importorskip("ctranslate2")
    if to == "onnx":
        pytest.importorskip("onnxscript")
    bottleneck = adapter(weights, tmp_path / "bottleneck", "bottleneck", width=4)
    assert main([bottleneck, "-o", str(tmp_path / "out"), "--to", to]) != 0
    error = capsys.readouterr().err
    assert "bottleneck cannot be exported: layers.0.ffn" in error
    assert "speech-peft methods" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "ct2", "--dtype", "q8_0"], "--dtype q8_0: --to ct2 has none such"),
        (["--to", "hf", "--rank", "4"], "--rank 4 is of --to peft"),
        (["--to", "hf", "--clip", "a.wav"], "give --check too"),
        (["--to", "peft"], "peft holds adapters alone"),
        (["--to", "hf", "--weights", "base"], "is no adapter, so --weights base"),
    ],
)
def test_what_does_not_fit_together_is_refused(words, message, weights, tmp_path, capsys):
    assert main([str(weights), "-o", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_whisper_goes_to_no_recogniser(tmp_path, capsys):
    module: Any = tiny("ast").module
    module.save_pretrained(tmp_path / "ast")
    assert main([str(tmp_path / "ast"), "-o", str(tmp_path / "out"), "--to", "ggml"]) == 2
    assert "--to ggml holds Whisper alone, and this is ast" in capsys.readouterr().err


def test_an_engine_that_is_not_installed_is_named_before_anything_is_written(weights, tmp_path, capsys):
    absent = formats.Format({"base": 1.0}, formats.FORMATS["hf"].write, lambda *_: None, "no_such", "pip x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(formats.FORMATS, "hf", absent)
        assert main([str(weights), "-o", str(tmp_path / "out"), "--to", "hf", "--check"]) == 2
    assert "no_such, which is not installed: pip x" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
