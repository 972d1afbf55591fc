"""What every training run keeps: it learns, the base stays, its state is small, safe and exact."""

import gc
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speech_peft.backbones import base, families
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.errors import AudioError, ConfigError, SpeechPeftError
from speech_peft.recipe import config
from speech_peft.train import fit
from speech_peft.train.data.clips import Clips
from speech_peft.train.state import LAST, load_state
from speech_peft.train.tasks.frozen import check_frozen
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "a" / "adapter.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


SPELLS = {"form": "ctc", "blocks": 2}


@pytest.mark.parametrize(
    ("name", "decoder", "context"),
    [
        ("whisper", "whisper", "fit"),
        ("whisper", "ctc", "fit"),
        ("whisper", SPELLS, "fit"),
        ("conformer", "ctc", None),
    ],
)
def test_a_task_overfits_one_batch_and_its_adapter_reloads(tmp_path, name, decoder, context):
    (tmp_path / "data").mkdir()
    tiny.corpus(tmp_path / "data", clips=4, seconds=0.8)  # of one length: every batch is the same
    path = tiny.recipe(tmp_path, decoder, backbone={"name": name, "context": context})
    over = ["trainer.max_steps=30", "data.seconds_per_batch=100", "optim.lr=2e-2", "optim.schedule=linear"]
    if decoder == "whisper":
        over.append("adapters.a.sites=['layers.*.ffn', 'decoder.layers.*.ffn']")
    trained = tiny.run(path, *over, f"data.valid={tmp_path}/data/train.jsonl", "data.max_valid=4")
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    assert trained.scores is not None
    assert trained.scores.name == "wer"
    saved = save.read(trained.folders[0])
    assert saved.backbone.name == name
    assert list(saved.head_config) == ([] if decoder == "whisper" else ["ctc"])
    assert (trained.folders[0] / "recipe.yaml").exists()


def test_a_checkpoint_holds_no_base_and_loads_without_pickle(tmp_path):
    tiny.run(tiny.recipe(tmp_path))
    path = tmp_path / "run" / LAST
    state = load_state(path)
    assert not [key for key in state["state_dict"] if key.startswith("model.base.")]
    trainable = sum(tensor.nbytes for tensor in state["state_dict"].values())
    assert path.stat().st_size <= 3.5 * trainable + 2**20


@pytest.mark.parametrize(
    "method",
    [
        {"method": "lora", "dropout": 0.3},
        {"method": "lte", "workers": 2, "rank": 2, "every": 4},  # goes on between two merges
        {"method": "hd_pissa", "workers": 2, "rank": 2},  # with the slabs it began with
    ],
    ids=lambda fields: fields["method"],
)
def test_a_run_goes_on_from_its_last_step_and_ends_as_if_uninterrupted(tmp_path, method):
    path = tiny.recipe(tmp_path, adapters={"a": {**method, "sites": ["*.attn.q"]}})
    over = ["data.degrade=telephone", "optim.schedule=constant"]
    tiny.run(path, *over, "trainer.max_steps=9", f"out={tmp_path}/whole")
    tiny.run(path, *over, "trainer.max_steps=5", f"out={tmp_path}/parts")
    tiny.run(path, *over, "trainer.max_steps=9", f"out={tmp_path}/parts", resume=True)
    assert same(adapter(tmp_path / "whole"), adapter(tmp_path / "parts"))
    losses = [[row["loss"] for row in rows(tmp_path / run)] for run in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_another_recipe_may_not_go_on_from_a_checkpoint(tmp_path):
    path = tiny.recipe(tmp_path)
    tiny.run(path)
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.01, is 0\.5"):
        tiny.run(path, "optim.lr=0.5", resume=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_heard_does_not_depend_on_the_number_of_workers(tmp_path, workers):
    path = tiny.recipe(tmp_path)
    tiny.run(path, "data.degrade=telephone", f"data.workers={workers}")
    assert rows(tmp_path / "run")[-1]["step"] == 6
    first = tmp_path.parent / "losses.json"
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    if first.exists():
        assert json.loads(first.read_text()) == losses
    first.write_text(json.dumps(losses))


def test_a_run_ends_when_its_time_is_up_with_the_rate_near_zero(tmp_path):
    path = tiny.recipe(tmp_path)
    began = time.monotonic()
    trained = tiny.run(path, "trainer.max_steps=null", "trainer.max_minutes=0.05")
    assert 3 <= trained.seconds < 6
    assert time.monotonic() - began < 30
    assert rows(tmp_path / "run")[-1]["lr"] < 1e-3


def test_a_run_leaves_nothing_of_itself_in_the_process(tmp_path):
    def models() -> int:
        gc.collect()
        return sum(type(found) is AdaptedModel for found in gc.get_objects())

    path, numbers = tiny.recipe(tmp_path), (signal.SIGINT, signal.SIGTERM)
    handlers, before = [signal.getsignal(number) for number in numbers], models()
    tiny.run(path, "trainer.max_steps=2")
    assert [signal.getsignal(number) for number in numbers] == handlers
    assert models() == before  # else a sweep of many runs fills the memory


def test_a_run_stops_before_step_0_when_the_base_would_train_or_too_much_would(tmp_path):
    path = tiny.recipe(tmp_path)
    with pytest.raises(ConfigError, match=r"trainer\.max_trainable_pct: .*0\.1 % may"):
        tiny.run(path, "trainer.max_trainable_pct=0.1")
    recipe = config.read(str(path))
    task, _ = fit.build(recipe, config.methods_of(recipe))
    assert "a (bottleneck, active)" in check_frozen(task)
    next(task.model.base.parameters()).requires_grad_(True)
    with pytest.raises(ConfigError, match="the base would train"):
        check_frozen(task)


def test_bad_clips_are_listed_with_the_reason_and_too_many_end_the_run(tmp_path):
    path = tiny.recipe(tmp_path)
    (tmp_path / "data" / "3.wav").write_bytes(b"not audio")
    with pytest.raises(SpeechPeftError, match="1 of 12 clips cannot be used"):
        tiny.run(path)
    tiny.run(path, "data.max_bad_fraction=0.1")
    (bad,) = map(json.loads, (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines())
    assert bad["id"] == "3"
    assert bad["reason"]


def test_native_batches_are_padded_to_the_native_length(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(base.Backbone, "encode", _spy(base.Backbone.encode, seen))
    tiny.run(
        tiny.recipe(tmp_path), "data.native_share=0.5", "data.seconds_per_batch=60", "trainer.max_steps=8"
    )
    assert {frames == 3000 for frames in seen} == {True, False}


def _spy(encode, seen):
    def spied(self, features):
        seen.append(features.values.shape[-1])
        return encode(self, features)

    return spied


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(Path(tiny.__file__)), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_step(run: Path, step: int, process: subprocess.Popen) -> None:
    while process.poll() is None:
        if (run / "metrics.jsonl").exists() and any(row["step"] >= step for row in rows(run)):
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[0])


@pytest.mark.slow
def test_a_run_killed_at_once_resumes_exactly(tmp_path):
    path = tiny.recipe(tmp_path)
    over = ["data.workers=2", "trainer.max_steps=40", "trainer.save_every_steps=3", "data.degrade=telephone"]
    whole = start(str(path), *over, f"out={tmp_path}/whole")
    parts = start(str(path), *over, f"out={tmp_path}/parts")
    wait_for_step(tmp_path / "parts", 11, parts)
    parts.kill()
    parts.communicate()
    assert 3 <= load_state(tmp_path / "parts" / LAST)["global_step"] < 40
    again = start(str(path), *over, f"out={tmp_path}/parts")
    outputs = [process.communicate()[0] for process in (again, whole)]
    assert again.returncode == whole.returncode == 0, outputs
    assert same(adapter(tmp_path / "whole"), adapter(tmp_path / "parts"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_130(tmp_path, number):
    path = tiny.recipe(tmp_path)
    process = start(str(path), "trainer.max_steps=100000", "trainer.save_every_seconds=null")
    wait_for_step(tmp_path / "run", 3, process)
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130, output
    assert "the same command goes on from there" in output
    assert load_state(tmp_path / "run" / LAST)["global_step"] >= 3


def _breaks_once_it_is_screened(monkeypatch, *ids: str) -> None:
    """These clips pass the look at their headers, and nobody can decode them when a worker asks."""
    stock = Clips._load

    def load(self, index):
        row = self.rows[index]
        if row.id in ids:
            raise AudioError(row.audio, "the disk was pulled out")
        return stock(self, index)

    monkeypatch.setattr(Clips, "_load", load)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_fails_in_a_worker_is_listed_once_and_counted(tmp_path, monkeypatch, capfd, workers):
    path = tiny.recipe(tmp_path)
    _breaks_once_it_is_screened(monkeypatch, "3")
    over = ["data.preload_hours=0", "data.max_bad_fraction=0.1", f"data.workers={workers}"]
    tiny.run(path, *over, f"data.valid={tmp_path}/data/train.jsonl")
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert (
        listed
        == [{"id": "3", "audio": str(tmp_path / "data" / "3.wav"), "reason": "the disk was pulled out"}] * 2
    )  # once as a training clip, once as a validation clip
    assert "clips left out: 1 of 12 (train), 1 of 12 (valid)" in capfd.readouterr().err
    tiny.run(path, *over, "trainer.max_steps=7", f"data.valid={tmp_path}/data/train.jsonl", resume=True)
    assert len((tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_clips_that_fail_in_workers_end_the_run(tmp_path, monkeypatch, workers):
    path = tiny.recipe(tmp_path)
    _breaks_once_it_is_screened(monkeypatch, "3", "5")
    over = ["data.preload_hours=0", "data.max_bad_fraction=0.1", f"data.workers={workers}"]
    with pytest.raises(SpeechPeftError, match=r"data\.train: 2 of 12 clips .* the disk was pulled out"):
        tiny.run(path, *over)
    assert len((tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()) == 2


def test_a_recording_deleted_under_way_is_a_bad_clip(tmp_path):
    path = tiny.recipe(tmp_path)
    recipe = config.read(str(path), ["data.preload_hours=0"])
    _, data = fit.build(recipe, config.methods_of(recipe))
    (tmp_path / "data" / "0.wav").unlink()
    assert data.train_clips[0, 0].reason == "No such file or directory"
