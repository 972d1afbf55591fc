"""What every restoration run keeps: each stage learns, goes on exactly, and leaves the base alone."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from speech_peft.backbones import families
from speech_peft.core.saved import save
from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from speech_peft.recipe import config, tasks
from speech_peft.train import fit
from speech_peft.train import stages as train_stages
from speech_peft.train.tasks.frozen import fingerprint
from tests import tiny
from tests.contract.test_classify import use_lively_backbones

MASK = {"name": "mask", "channels": 16, "blocks": 1}
DECODERS = {
    "mask": MASK,
    "map": {"name": "map", "channels": 16, "blocks": 1},
    "istft": {"name": "istft", "sample_rate": 16000, "channels": 32, "hidden": 64, "blocks": 1},
    "wavefit": {
        "name": "wavefit",
        "sample_rate": 16000,
        "steps": 2,
        "factors": [4, 5, 4, 2],
        "up": [16, 16, 8, 8],
        "down": [8, 8, 16],
        "before": 1,
        "channels": 16,
        "mels": 16,
    },
}
JUDGES = {"scales": 1, "periods": [3], "scale_channels": 1, "period_channels": 2}
CLEANER = {"method": "bottleneck", "width": 16, "sites": ["layers.*.tail"]}
NONE = {"decoder": {"method": "none"}}
NOISY = [{"kind": "noise", "snr": [0, 5]}]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    use_lively_backbones()
    monkeypatch.setattr(loading, "open_backbone", families.open_backbone)


def recipe(folder: Path, stage: str, backbone: str = "whisper", **changes) -> Path:
    """Four clips of one length, which make the same batch each time, always with the same noise."""
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        tiny.corpus(data, clips=4, seconds=0.6)
    weights = "tiny:wav2vec2-bert" if backbone == "conformer" else "tiny"
    return tiny.recipe(
        folder,
        backbone={"name": backbone, "weights": weights, "context": None, "layer": 2},
        task={"name": "restore", "stage": stage, **changes.pop("task", {})},
        data={"seconds_per_batch": 100, "degrade": NOISY, "variants": 1, **changes.pop("data", {})},
        adapters=changes.pop("adapters", {"cleaner": CLEANER} if stage == "features" else NONE),
        **changes,
    )


def losses(run: Path) -> list[float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def steps(count: int, run: Path) -> list[str]:
    return [f"trainer.max_steps={count}", "optim.schedule=constant", f"out={run}"]


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("backbone", ["whisper", "conformer", "usm"])
def test_features_overfit_one_batch_and_end_nearer_to_the_clean_ones(tmp_path, backbone):
    path = recipe(tmp_path, "features", backbone)
    over = [*steps(40, tmp_path / "run"), f"data.valid={tmp_path}/data/train.jsonl"]
    trained = tiny.run(path, *over, "trainer.valid_every_steps=20", "optim.lr=1e-2")
    found = losses(tmp_path / "run")
    assert found[-1] < 0.8 * found[0]
    assert trained.scores is not None
    assert trained.scores.name == "feature_error"
    assert trained.scores.value < 1
    opened = loading.load(
        trained.folders[0], weights="tiny:wav2vec2-bert" if backbone == "conformer" else "tiny"
    )
    assert opened.decoder is None
    assert opened.backbone.layer == 2


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_learns_one_batch_of_clean_states_and_reloads(tmp_path, decoder):
    path = recipe(tmp_path, "decoder", task={"decoder": DECODERS[decoder]})
    over = [*steps(20, tmp_path / "run"), f"data.valid={tmp_path}/data/train.jsonl", "optim.lr=3e-3"]
    trained = tiny.run(path, *over)
    found = losses(tmp_path / "run")
    assert found[-1] < 0.97 * found[0]
    assert trained.scores is not None
    assert trained.scores.name == "stft_distance"
    opened = loading.load(trained.folders[0], weights="tiny")
    assert opened.decoder is not None
    assert opened.decoder.config()["name"] == decoder
    head = load_file(trained.folders[0] / "head.safetensors")
    assert not [key for key in head if "judges" in key]
    for key, value in opened.decoder.state_dict().items():
        assert torch.equal(value, head[f"decoder.{key}"])


def both(tmp_path: Path) -> dict[str, str]:
    """A cleaner and a decoder of two steps."""
    tiny.run(recipe(tmp_path, "features"), *steps(2, tmp_path / "features"))
    tiny.run(recipe(tmp_path, "decoder", task={"decoder": MASK}), *steps(2, tmp_path / "decoder"))
    return {"cleaner": f"{tmp_path}/features/cleaner", "decoder": f"{tmp_path}/decoder/decoder"}


@pytest.mark.parametrize("joint", [False, True])
def test_fine_tuning_goes_on_from_both_and_moves_the_adapter_only_when_it_is_told_to(tmp_path, joint):
    left = both(tmp_path)
    path = recipe(
        tmp_path,
        "finetune",
        adapters={"cleaner": {"from": left["cleaner"]}},
        train=["cleaner"] if joint else [],
        task={"decoder": {"from": left["decoder"]}},
    )
    untouched = fingerprint(fit.build(config.read(str(path)), {})[0].model.base)
    trained = tiny.run(path, *steps(15, tmp_path / "run"))
    found = losses(tmp_path / "run")
    assert found[-1] < found[0]
    assert trained.base_sha256 == untouched
    (folder,) = trained.folders
    assert same(folder / "adapter.safetensors", Path(left["cleaner"]) / "adapter.safetensors") != joint
    assert not same(folder / "head.safetensors", Path(left["decoder"]) / "head.safetensors")
    assert save.read(folder).head_config["decoder"]["name"] == "mask"


def test_adapters_in_a_decoder_learn_alone_go_on_exactly_and_are_opened_with_it(tmp_path):
    tiny.run(recipe(tmp_path, "finetune", task={"decoder": DECODERS["map"]}), *steps(1, tmp_path / "base"))
    inside = {"from": f"{tmp_path}/base/decoder", "adapters": {"bands": {"method": "knitting", "width": 8}}}
    path = recipe(tmp_path, "finetune", task={"decoder": inside})
    trained = tiny.run(path, *steps(6, tmp_path / "run"), "optim.lr=1e-2")
    found = losses(tmp_path / "run")
    assert found[-1] < found[0]
    base, head = (load_file(f"{tmp_path}/{run}/decoder/head.safetensors") for run in ("base", "run"))
    assert all(torch.equal(head[key], value) for key, value in base.items())
    added = {key: value for key, value in head.items() if key not in base}
    assert added
    assert all(key.startswith("decoder.adapters.parts.bands.") for key in added)
    opened = loading.load(trained.folders[0], weights="tiny")
    assert opened.decoder is not None
    state = opened.decoder.state_dict()
    assert all(torch.equal(state[key.removeprefix("decoder.")], value) for key, value in head.items())
    with pytest.raises(ConfigError, match="has adapters already"):
        tiny.run(path, f"task.decoder.from={tmp_path}/run/decoder", *steps(1, tmp_path / "again"))


def test_adapters_of_a_decoder_are_checked_before_anything_is_read(tmp_path):
    for fields, why in (
        (
            {"from": "x", "adapters": {"a": {"method": "knitting", "wdth": 8}}},
            r"task\.decoder\.adapters\.a\.wdth",
        ),
        ({"from": "x", "adapters": {"a": {"width": 8}}}, r"task\.decoder\.adapters\.a: expected"),
        ({**DECODERS["map"], "adapters": {"a": {"method": "knitting"}}}, "sit in a decoder that has learned"),
    ):
        with pytest.raises(ConfigError, match=why):
            fit.check_parts(config.read(str(recipe(tmp_path, "finetune", task={"decoder": fields}))))


def test_the_decoder_stage_hears_the_clean_recording_and_nothing_else(tmp_path):
    fields = {"decoder": DECODERS["istft"]}
    for run, degrade in (("noisy", NOISY), ("clean", [])):
        path = recipe(tmp_path, "decoder", task=fields, data={"degrade": degrade})
        tiny.run(path, *steps(2, tmp_path / run))
    assert same(tmp_path / "noisy/decoder/head.safetensors", tmp_path / "clean/decoder/head.safetensors")


def test_a_stage_with_judges_and_crops_goes_on_as_if_uninterrupted(tmp_path):
    task = {"decoder": DECODERS["istft"], "crop_seconds": 0.2, "discriminators": JUDGES}
    path = recipe(tmp_path, "decoder", task=task)
    tiny.run(path, *steps(4, tmp_path / "whole"))
    tiny.run(path, *steps(2, tmp_path / "parts"))
    tiny.run(path, *steps(4, tmp_path / "parts"), resume=True)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert same(tmp_path / "whole/decoder/head.safetensors", tmp_path / "parts/decoder/head.safetensors")


def judged(tmp_path: Path, **judges):
    read = config.read(
        str(
            recipe(
                tmp_path, "decoder", task={"decoder": DECODERS["istft"], "discriminators": JUDGES | judges}
            )
        )
    )
    task, data = fit.build(read, config.methods_of(read))
    return task.train(), next(iter(data.once_through()))


def test_what_judges_and_decoder_lose_reaches_only_their_own_parameters(tmp_path):
    task, batch = judged(tmp_path)
    pieces = task.pieces(batch, task.clean_states(batch).states)
    weights = tasks.WaveformLosses(convergence=0, log_magnitude=0)
    task.config = task.config.model_copy(update={"waveform": weights})
    made = task._made(pieces)
    loss = task._judged(made, pieces.clean)
    own = torch.autograd.grad(loss, list(task.judges.parameters()), retain_graph=True)
    alone = torch.autograd.grad(
        task._judged([one.detach() for one in made], pieces.clean), list(task.judges.parameters())
    )
    for a, b in zip(own, alone, strict=True):
        torch.testing.assert_close(a, b)
    assert any(g.abs().max() > 0 for g in torch.autograd.grad(loss, list(task.decoder.out.parameters())))


def test_judges_only_watch_until_they_start(tmp_path):
    task, batch = judged(tmp_path, start=5)
    pieces = task.pieces(batch, task.clean_states(batch).states)
    loss = task._judged(task._made(pieces), pieces.clean)
    parameters = list(task.decoder.out.parameters())
    assert all(g is None for g in torch.autograd.grad(loss, parameters, allow_unused=True))


def test_a_crop_of_states_and_waveforms_is_one_stretch_of_time(tmp_path):
    path = recipe(tmp_path, "decoder", task={"decoder": MASK, "crop_seconds": 0.2}, data={"degrade": []})
    read = config.read(str(path))
    task, data = fit.build(read, config.methods_of(read))
    batch, hop = next(iter(data.once_through())), task.decoder.hop
    frames = torch.arange(30.0)[None, :, None].expand(len(batch.lengths), 30, 32)
    pieces = task.train().pieces(batch, frames)
    assert pieces.states.shape[1] == 10
    for clip, first in enumerate(pieces.states[:, 0, 0].long().tolist()):
        torch.testing.assert_close(
            pieces.clean[clip], batch.references[clip, first * hop : (first + 10) * hop]
        )
    torch.testing.assert_close(pieces.degraded, pieces.clean)
    assert (pieces.lengths == 10 * hop).all()


@pytest.mark.parametrize(
    ("stage", "over", "message"),
    [
        ("features", ["task.decoder={name: mask}"], "stage=features makes no waveform"),
        ("features", ["backbone.train=true"], r"backbone\.train: restoration is measured"),
        (
            "features",
            ["data.cache={where: memory}"],
            r"data\.cache: task\.name=restore hears each clip twice",
        ),
        ("features", ["task.layer=1"], "the states of block 1 are wanted"),
        ("decoder", [], r"task\.decoder: stage=decoder needs either"),
        ("decoder", ["task.decoder={name: mask}", "adapters.decoder.method=lora"], "no adapter would run"),
        ("decoder", ["task.decoder={name: mask, chanels: 8}"], "Did you mean 'channels'"),
        ("decoder", ["task.decoder={name: masc}"], r"task\.decoder\.name: .* Did you mean 'mask'"),
    ],
)
def test_a_mistake_in_a_stage_is_told_before_anything_is_loaded(tmp_path, monkeypatch, stage, over, message):
    monkeypatch.setattr(fit, "build", None)
    with pytest.raises(ConfigError, match=message):
        tiny.run(recipe(tmp_path, stage), *over)


# ---- stages in their order --------------------------------------------------------------------------------


def staged(folder: Path) -> Path:
    path = recipe(folder, "features")
    shared = yaml.safe_load(path.read_text())
    del shared["adapters"], shared["task"]
    shared["task"] = {"name": "restore"}
    shared["trainer"]["max_steps"] = 2
    shared["stages"] = {
        "features": {"adapters": {"cleaner": CLEANER}, "task": {"stage": "features"}},
        "decoder": {"adapters": NONE, "task": {"stage": "decoder", "decoder": MASK}},
        "finetune": {
            "adapters": {"cleaner": {"from": "features/cleaner"}},
            "task": {"stage": "finetune", "decoder": {"from": "decoder/decoder"}},
        },
    }
    path.write_text(yaml.safe_dump(shared, sort_keys=False))
    return path


class Spy:
    """Notes which stages train, and for how many steps in all."""

    def __init__(self, monkeypatch):
        self.ran: list[tuple[str, int]] = []
        self.stop_in: str | None = None
        monkeypatch.setattr(train_stages, "train", self)

    def __call__(self, recipe, resume, watchers=()):
        if Path(recipe.out).name == self.stop_in:
            raise KeyboardInterrupt
        left = fit.train(recipe, resume, watchers)
        self.ran.append((Path(recipe.out).name, left.steps))
        return left

    def run(self, path: Path, *over: str, resume: bool = True):
        self.ran.clear()
        return train_stages.run(config.read_stages(str(path), over), resume)


def test_stages_run_in_order_and_go_on_between_them(tmp_path, monkeypatch):
    path, spy = staged(tmp_path), Spy(monkeypatch)
    spy.stop_in = "finetune"
    with pytest.raises(KeyboardInterrupt):
        spy.run(path)
    assert spy.ran == [("features", 2), ("decoder", 2)]
    spy.stop_in = None
    left = spy.run(path)
    assert spy.ran == [("finetune", 2)]
    assert left.folders == [tmp_path / "run" / "finetune" / "cleaner"]
    assert loading.load(left.folders[0], weights="tiny").decoder is not None
    assert spy.run(path) == left
    assert spy.ran == []


def test_a_stage_begins_anew_when_what_it_began_from_has_changed(tmp_path, monkeypatch):
    path, spy = staged(tmp_path), Spy(monkeypatch)
    spy.run(path)
    spy.run(path, "stages.features.trainer.max_steps=3")
    assert spy.ran == [("features", 3), ("finetune", 2)]
    cleaner = [tmp_path / "run" / stage / "cleaner" for stage in ("features", "finetune")]
    assert same(*(folder / "adapter.safetensors" for folder in cleaner))
