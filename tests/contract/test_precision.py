"""Precision and accumulation: what a smaller machine changes about a run, and what it must not."""

import json

import pytest
import torch
from safetensors.torch import load_file

from speech_peft.backbones import families
from speech_peft.core.passage.recompute import Recompute
from speech_peft.errors import ConfigError
from speech_peft.train.tasks.base import Task
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()


@pytest.fixture
def gradients(monkeypatch):
    """The gradient of every parameter at every optimiser step, as the optimiser gets to see it."""
    seen: list[torch.Tensor] = []
    stock = Task.on_before_optimizer_step

    def spy(self, optimizer):
        stock(self, optimizer)
        seen.append(torch.cat([p.grad.flatten().clone() for p in self.trained()]))

    monkeypatch.setattr(Task, "on_before_optimizer_step", spy)
    return seen


def losses(folder) -> list[float]:
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("decoder", ["whisper", "ctc"])
def test_two_accumulated_halves_are_one_batch(tmp_path, gradients, decoder):
    (tmp_path / "data").mkdir()
    manifest = tiny.corpus(tmp_path / "data", clips=8, seconds=0.8)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[5]["text"] += " three four one"  # so that one half has more to say than the other
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tiny.recipe(tmp_path, decoder)
    short = ["trainer.max_steps=1", "data.native_share=0"]
    tiny.run(path, *short, "data.seconds_per_batch=6.5")
    tiny.run(path, *short, "data.seconds_per_batch=3.3", "trainer.accumulate=2")
    whole, halves = gradients
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(halves, whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize(("name", "decoder"), [("whisper", "whisper"), ("conformer", "ctc"), ("usm", "ctc")])
def test_bf16_learns_on_a_cpu(tmp_path, name, decoder, precision):
    (tmp_path / "data").mkdir()
    tiny.corpus(tmp_path / "data", clips=4, seconds=0.8)
    over = ["trainer.max_steps=30", "data.seconds_per_batch=100", "optim.lr=2e-2"]
    if decoder == "whisper":
        over.append("adapters.a.sites=['layers.*.ffn', 'decoder.layers.*.ffn']")
    context = "fit" if name == "whisper" else None
    path = tiny.recipe(tmp_path, decoder, backbone={"name": name, "context": context})
    tiny.run(path, *over, f"trainer.precision={precision}")
    found = losses(tmp_path)
    assert found[-1] < 0.7 * found[0]
    saved = load_file(tmp_path / "run" / "a" / "adapter.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_fp16_on_a_cpu_is_refused_before_anything_is_read(tmp_path):
    path = tiny.recipe(tmp_path)
    (tmp_path / "data" / "0.wav").unlink()
    with pytest.raises(ConfigError, match=r"trainer\.precision: 16-mixed needs a GPU"):
        tiny.run(path, "trainer.precision=16-mixed")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("name", "decoder"), [("whisper", "whisper"), ("conformer", "ctc")])
def test_recomputed_blocks_give_the_same_losses(tmp_path, monkeypatch, name, decoder, precision):
    runs = []
    stock = Recompute.__call__
    monkeypatch.setattr(Recompute, "__call__", lambda self, *a, **k: runs.append(1) or stock(self, *a, **k))
    context = "fit" if name == "whisper" else None
    sites = ["layers.*.ffn", "decoder.layers.*.ffn"] if decoder == "whisper" else ["layers.*.ffn"]
    adapters = {"a": {"method": "bottleneck", "width": 4, "dropout": 0.3, "sites": sites}}
    path = tiny.recipe(tmp_path, decoder, backbone={"name": name, "context": context}, adapters=adapters)
    over = [
        "trainer.max_steps=4",
        f"trainer.precision={precision}",
        f"data.valid={tmp_path}/data/train.jsonl",
    ]
    tiny.run(path, *over)
    plain = losses(tmp_path)
    assert not runs
    tiny.run(path, *over, "trainer.recompute=true")
    assert len(runs) >= 4 * (4 if decoder == "whisper" else 2)
    assert losses(tmp_path) == pytest.approx(plain, abs=1e-5)
