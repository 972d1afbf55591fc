"""Methods that constrain the matrices of another, in training: resumed in bf16, in two processes, loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import parametrize

from speech_peft.backbones import families
from speech_peft.opening.loading import load
from tests import tiny
from tests.workers import launched, torchrun

ADAPTERS = {
    "a": {"method": "low_bit", "of": {"method": "bottleneck", "width": 4, "bias": False}},
    "b": {
        "method": "sparse",
        "density": 0.4,
        "init_std": 0.1,
        "of": {"method": "lora", "sites": ["*.attn.[qv]"]},
    },
    "c": {"method": "mosa", "of": {"method": "bottleneck", "preset": "pfeiffer", "width": 4}},
}
OVER = ["task.name=classify", "optim.schedule=constant", "data.seconds_per_batch=2"]


def recipe(folder: Path) -> Path:
    (folder / "data").mkdir()
    tiny.corpus(folder / "data", clips=8, seconds=0.5)
    return tiny.recipe(folder, adapters=ADAPTERS, task={"name": "classify"})


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return {f"{n}/{k}": v for n in ADAPTERS for k, v in load_file(run / n / "adapter.safetensors").items()}


def test_a_run_in_bf16_resumes_exactly_and_its_adapters_load(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()
    monkeypatch.setattr("speech_peft.opening.loading.open_backbone", families.open_backbone)
    path, over = recipe(tmp_path), [*OVER, "trainer.precision=bf16-mixed"]
    tiny.run(path, *over, "trainer.max_steps=4", f"out={tmp_path}/straight")
    for steps in (2, 4):
        tiny.run(path, *over, f"trainer.max_steps={steps}", f"out={tmp_path}/twice", resume=True)
    straight, twice = tensors(tmp_path / "straight"), tensors(tmp_path / "twice")
    assert straight.keys() == twice.keys()
    assert [key for key in straight if not torch.equal(straight[key], twice[key])] == []
    kept = {k: v for k, v in straight.items() if k.endswith(".values")}
    assert sum(map(len, kept.values())) == pytest.approx(0.4 * 2 * 2 * 2 * 8 * 32, abs=1)
    for name in ADAPTERS:
        opened = load(tmp_path / "straight" / name)
        assert not any(
            map(parametrize.is_parametrized, opened.model.modules())
        )  # it costs what the host costs
        features = opened.backbone.prepare(torch.randn(1, 8000), torch.tensor([8000]))
        assert opened.backbone.encode(features).states.isfinite().all()


LORA = {"method": "lora", "rank": 2, "sites": ["*.attn.[qv]"]}
SCORED = {
    name: {"method": "sparse", "score": name, "init_std": 0.1, "of": LORA} for name in ("grasp", "synflow")
}


@pytest.mark.parametrize(("decoder", "scored"), [("whisper", SCORED), ("ctc", {})])
def test_recognition_scores_and_lets_passes_agree_on_tokens_and_frames(
    tmp_path, monkeypatch, decoder, scored
):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()
    (tmp_path / "data").mkdir()
    tiny.corpus(tmp_path / "data", clips=4, seconds=0.5)
    adapters = {**scored, "c": {**ADAPTERS["c"], "agreement": 100.0}}
    path = tiny.recipe(tmp_path, decoder, adapters=adapters)
    tiny.run(path, "trainer.max_steps=2", "trainer.accumulate=2", "data.seconds_per_batch=1")
    for name in scored:
        saved = load_file(tmp_path / "run" / name / "adapter.safetensors")
        kept = sum(len(value) for key, value in saved.items() if key.endswith(".values"))
        assert kept == round(0.6 * 8 * 2 * 2 * 32)  # eight sites, the decoder's too


@pytest.mark.slow
def test_two_processes_choose_and_learn_what_one_does_with_the_double_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()
    path, out = recipe(tmp_path), f"out={tmp_path}/"
    tiny.run(path, out + "one", *OVER)
    two = [*OVER[:2], "data.seconds_per_batch=1", "trainer.devices=2", "trainer.strategy=ddp"]
    launched(lambda: tiny.run(path, out + "two", *two), torchrun)
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        if value.dtype == torch.uint8:  # masks and codes
            assert torch.equal(two[key], value), key
        else:
            torch.testing.assert_close(two[key], value, atol=2e-4, rtol=1e-3)
