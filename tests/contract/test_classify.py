"""What every classification run keeps: it learns on every backbone, reloads, and selects what is best."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from speech_peft.recipe import config
from speech_peft.train import fit
from speech_peft.train.tasks.frozen import check_frozen, fingerprint
from tests import tiny

BACKBONES = {
    "whisper": ("whisper", "tiny"),
    "ast": ("ast", "tiny"),
    "w2v_bert": ("conformer", "tiny:wav2vec2-bert"),
    "w2v_conformer": ("conformer", "tiny:wav2vec2-conformer"),
    "parakeet": ("conformer", "tiny:parakeet"),
    "usm": ("usm", "tiny"),
}
PROBE = {"a": {"method": "none"}}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    use_lively_backbones()
    monkeypatch.setattr(loading, "open_backbone", families.open_backbone)


def use_lively_backbones():
    """Tiny ones whose weights are as large as their width asks for.

    At a deviation of 0.02, as libraries start them, 32 channels hand on next to nothing of the sound.
    """
    tiny.use_tiny_backbones()
    open_tiny = families.open_backbone

    def open_lively(*args, **options):
        backbone = open_tiny(*args, **options)
        for module in backbone.module.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data.mul_(1 / (module.in_features**0.5 * module.weight.std()))
        return backbone

    families.open_backbone = open_lively


def recipe(folder, name="whisper", weights="tiny", clips=6, **changes):
    data = folder / "data"
    data.mkdir(exist_ok=True)
    tiny.corpus(data, clips=clips, seconds=0.8)  # of one length: every batch is the same
    random = np.random.default_rng(0)
    time = np.arange(12800) / 16000
    for i in range(clips):  # a hum, noise and clicks: classes that a random encoder can tell apart
        hum = 0.3 * np.sin(2 * np.pi * (150 + 10 * i) * time)
        clicks = 0.5 * (np.arange(12800) % (900 + 50 * i) < 8)
        sound = (hum, 0.2 * random.standard_normal(12800), clicks)[i % 3]
        soundfile.write(data / f"{i}.wav", sound + 1e-3 * random.standard_normal(12800), 16000)
    backbone = {"name": name, "weights": weights, "context": None}
    task = {"name": "classify", **changes.pop("task", {})}
    return tiny.recipe(folder, backbone=backbone, task=task, **changes)


def examined(opened, batch):
    """Loss and error rate of a loaded adapter on a batch."""
    with torch.no_grad():
        logits = opened.classifier.logits(
            opened.backbone, opened.backbone.prepare(batch.audio, batch.lengths)
        )
    truth = torch.tensor([opened.classifier.labels.index(label) for label in batch.labels])
    loss = torch.nn.functional.cross_entropy(logits, truth)
    return float(loss), float((logits.argmax(-1) != truth).float().mean())


def losses(folder):
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("family", BACKBONES)
def test_classify_overfits_one_batch_and_its_adapter_reloads(tmp_path, family):
    # Clips of a random Whisper differ little beside the positions they share; standardised they do.
    path = recipe(tmp_path, *BACKBONES[family], task={"standardise": True})
    over = ["trainer.max_steps=30", "data.seconds_per_batch=100", "optim.lr=1e-2", "optim.schedule=linear"]
    trained = tiny.run(path, *over, f"data.valid={tmp_path}/data/train.jsonl")
    found = losses(tmp_path)
    assert found[-1] < 0.6 * found[0]
    assert trained.scores is not None
    assert trained.scores.name == "error_rate"
    opened = loading.load(trained.folders[0], weights=BACKBONES[family][1])
    assert opened.classifier is not None
    assert opened.classifier.labels == ("one", "three", "two")
    read = config.read(str(path), over)
    _, data = fit.build(read, config.methods_of(read))
    loss, wrong = examined(opened, next(iter(data.once_through())))
    assert loss == pytest.approx(trained.scores.loss, abs=1e-4)
    assert wrong == pytest.approx(trained.scores.value)


@pytest.mark.parametrize("family", BACKBONES)
def test_full_fine_tuning_trains_the_encoder_alone_and_reloads(tmp_path, family):
    name, weights = BACKBONES[family]
    path = recipe(tmp_path, name, weights, adapters=PROBE)
    over = ["backbone.train=true", "data.seconds_per_batch=100", "trainer.max_steps=3", "optim.lr=1e-3"]
    read = config.read(str(path), [*over, f"data.valid={tmp_path}/data/train.jsonl"])
    fresh, data = fit.build(read, config.methods_of(read))
    assert "fine-tuned" in check_frozen(fresh)
    assert not [key for key in fresh.base_parameters if "decoder" in key]
    before = loading.load(None, weights=weights).backbone if name == "whisper" else fresh.backbone
    before = {k: v.clone() for k, v in before.module.state_dict().items()}
    trained = fit.train(read, resume=False)
    assert trained.base_trained
    opened = loading.load(trained.folders[0], weights=weights)
    after = opened.backbone.module.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert changed <= set(fresh.base_parameters)
    assert len(changed) > 0.9 * len(fresh.base_parameters)
    loss, _ = examined(opened, next(iter(data.once_through())))
    assert loss == pytest.approx(trained.scores.loss, abs=1e-4)


def test_a_full_fine_tuning_goes_on_from_its_last_step_as_if_uninterrupted(tmp_path):
    path = recipe(tmp_path, adapters=PROBE)
    over = ["backbone.train=true", "optim.schedule=constant", "optim.lr=1e-3"]
    tiny.run(path, *over, "trainer.max_steps=6", f"out={tmp_path}/whole")
    tiny.run(path, *over, "trainer.max_steps=3", f"out={tmp_path}/parts")
    tiny.run(path, *over, "trainer.max_steps=6", f"out={tmp_path}/parts", resume=True)
    for file in ("base", "head"):
        whole, parts = (load_file(tmp_path / run / "a" / f"{file}.safetensors") for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_the_base_stays_and_a_linear_probe_trains_the_head_alone(tmp_path):
    path = recipe(tmp_path, adapters=PROBE)
    read = config.read(str(path), ["task.standardise=true", "optim.lr=1e-2"])
    task, _ = fit.build(read, config.methods_of(read))
    assert sum(p.numel() for p in task.trained()) == 3 * 32 + 3
    trained = fit.train(read, resume=False)
    assert trained.base_sha256 == fingerprint(task.model.base)
    assert load_file(trained.folders[0] / "adapter.safetensors") == {}
    head = load_file(trained.folders[0] / "head.safetensors")
    assert head["classify.std"].shape == (1, 32)
    assert (head["classify.std"] != 1).all()


def test_the_best_validation_is_what_is_saved(tmp_path):
    path = recipe(tmp_path, adapters=PROBE)
    over = [f"data.valid={tmp_path}/data/train.jsonl", "trainer.max_steps=12", "trainer.valid_every_steps=1"]
    trained = tiny.run(path, *over, "optim.lr=5e-2")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "valid_loss" in row]
    best = min(rows, key=lambda row: (row["valid_error_rate"], row["valid_loss"]))
    assert trained.scores.value == pytest.approx(best["valid_error_rate"], abs=1e-6)
    assert trained.scores.loss == pytest.approx(best["valid_loss"], abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "mlp", "pooling": "attention"},
        {"layer": "mix", "standardise": True},
        {"layer": "mix"},
        {"layer": 1},
        {"class_weights": "balanced", "label_smoothing": 0.1, "mixup": 0.4},
        {"multi_label": True, "class_weights": "balanced", "label_smoothing": 0.1, "mixup": 0.4},
        {"labels": ["two", "one", "three"], "score": "macro_f1"},
    ],
)
def test_every_setting_of_the_task_trains_and_reloads(tmp_path, changes):
    path = recipe(tmp_path, task=changes)
    over = [f"data.valid={tmp_path}/data/train.jsonl", "data.shift_seconds=0.2", "data.spec_augment={}"]
    trained = tiny.run(path, *over)
    opened = loading.load(trained.folders[0], weights="tiny")
    for key, value in changes.items():
        if hasattr(opened.classifier, key):
            assert getattr(opened.classifier, key) in (value, tuple(value) if key == "labels" else value)
    assert trained.scores.name == (
        "macro_f1_error" if "multi_label" in changes or "score" in changes else "error_rate"
    )


def test_native_pooling_is_the_backbones_own(tmp_path):
    tiny.run(recipe(tmp_path, "ast", task={"pooling": "native"}))
    with pytest.raises(ConfigError, match=r"task\.pooling: whisper has no summary"):
        tiny.run(recipe(tmp_path, task={"pooling": "native"}), f"out={tmp_path}/other")


def test_augmented_training_repeats_itself_to_the_bit(tmp_path):
    path = recipe(tmp_path, task={"mixup": 0.5})
    for out in ("one", "two"):
        tiny.run(path, "data.shift_seconds=0.2", "data.spec_augment={}", f"out={tmp_path}/{out}")
    one, two = (load_file(tmp_path / out / "a" / "adapter.safetensors") for out in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("layer", ["last", 1])
def test_a_probe_through_the_cache_equals_one_without(tmp_path, layer):
    path = recipe(tmp_path, adapters=PROBE, task={"layer": layer})
    for out, cache in (("with", "{where: memory}"), ("without", "null")):
        over = ["data.seconds_per_batch=100", f"data.cache={cache}", f"out={tmp_path}/{out}"]
        tiny.run(path, *over)
    one, two = (load_file(tmp_path / out / "a" / "head.safetensors") for out in ("with", "without"))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_adapters_are_taken_from_below_the_layer_that_is_read(tmp_path):
    path = recipe(tmp_path, task={"layer": 1})
    trained = tiny.run(path)
    saved = json.loads((trained.folders[0] / "adapter.json").read_text())
    assert saved["sites"] == ["layers.0.ffn"]
    loading.load(trained.folders[0], weights="tiny")
    with pytest.raises(ConfigError, match=r"no site matches 'layers\.1\.ffn'"):
        tiny.run(path, "adapters.a.sites=['layers.1.ffn']", f"out={tmp_path}/other")
