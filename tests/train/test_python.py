"""Training from Python: parts as objects, data sets in memory, and trainers of somebody else's making."""

import json

import lightning.pytorch as L
import numpy as np
import pytest
import soundfile
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

import speech_peft as sp
from speech_peft.audio import manifest
from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.opening import adapted  # noqa: F401  # before anything replaces what opens weights
from speech_peft.recipe import config
from speech_peft.train import python
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, tmp_path):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    monkeypatch.setenv("SPEECH_PEFT_CACHE", str(tmp_path / "cache"))
    tiny.use_tiny_backbones()


def tree(folder, **changes):
    """The recipe of `tiny` as keys and values."""
    return yaml.safe_load(tiny.recipe(folder, **changes).read_text())


class Feature:
    """A column of a data set: how sound is decoded, or what numbers stand for."""

    def __init__(self, decode=True, names=None):
        self.decode, self.names = decode, names


class DataSet:
    """As `datasets.Dataset` is used: records, features, and a column that is cast."""

    def __init__(self, folder, decode=True, features=None):
        self.rows = manifest.read(folder / "data" / "train.jsonl")
        self.features = features or {
            "audio": Feature(decode),
            "label": Feature(False, ["four", "one", "three", "two"]),
        }

    def cast_column(self, name, feature):
        return DataSet.__new__(DataSet)._with(self.rows, {**self.features, name: feature})

    def _with(self, rows, features):
        self.rows, self.features = rows, features
        return self

    def __iter__(self):
        for row in self.rows:
            audio = {"bytes": row.audio.read_bytes(), "path": row.audio.name}
            if self.features["audio"].decode:
                raise AssertionError("nobody needs it decoded")
            yield {
                "audio": audio,
                "sentence": row.text,
                "label": self.features["label"].names.index(row.label),
            }


# ---- what a recipe may be ---------------------------------------------------------------------------


def test_a_recipe_as_keys_and_values_with_methods_as_objects_is_the_recipe_of_the_file(tmp_path):
    lora = {"method": "lora", "rank": 2, "sites": ["*.attn.[qv]"]}
    path = tiny.recipe(tmp_path, adapters={"a": lora})
    parts = {**yaml.safe_load(path.read_text()), "adapters": {"a": sp.Lora(rank=2, sites=["*.attn.[qv]"])}}
    (expected,) = config.read_stages(str(path)).values()
    for given in (path, str(path), parts, expected):
        (found,) = python.recipes_of(given, [], {}).values()
        assert found.model_dump() == expected.model_dump()
    (found,) = python.recipes_of(None, [], parts).values()
    assert found.model_dump() == expected.model_dump()


def test_parts_are_laid_over_a_recipe_field_by_field_and_adapters_as_a_whole(tmp_path):
    path = tiny.recipe(tmp_path)
    parts = {"optim": {"warmup": 3}, "adapters": {"b": sp.Lora(rank=2)}, "out": str(tmp_path / "other")}
    (found,) = python.recipes_of(path, ["seed=4"], parts).values()
    assert (found.optim.lr, found.optim.warmup, found.seed) == (1e-2, 3, 4)
    assert (found.adapters, found.train) == ({"b": {"method": "lora", "rank": 2}}, ("b",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": {"lrr": 1}}, r"^optim\.lrr: OptimConfig has no field 'lrr'\. Did you mean 'lr'"),
        (
            {"adapters": {"a": {"method": "lora", "r": 8}}},
            r"^adapters\.a\.r: Lora has no field 'r'\. Did you",
        ),
        ({"data": {"train": 3}}, r"^data\.train: expected a manifest, rows or a data set, got int"),
        ({"data": {"train": [1]}}, r"^data\.train: expected records with a column of sound, got int"),
        ({"data": {"train": []}}, r"^data\.train: holds no record"),
        ({"data": {"train": "no.jsonl"}}, r"^data\.train: no\.jsonl does not exist"),
        ({"out": None}, r"^out: "),
    ],
)
def test_what_is_wrong_is_told_as_the_command_tells_it(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        sp.fit(tiny.recipe(tmp_path), **change)
    with pytest.raises(ConfigError, match=r"^recipe: expected a file.*got int"):
        sp.fit(3)


# ---- data sets --------------------------------------------------------------------------------------


def test_a_data_set_is_trained_on_as_its_files_are(tmp_path):
    path = tiny.recipe(tmp_path, trainer={"max_steps": 2})
    (tmp_path / "data" / "valid.jsonl").write_text((tmp_path / "data" / "train.jsonl").read_text())
    first = sp.fit(path, out=str(tmp_path / "files"))
    again = sp.fit(path, out=str(tmp_path / "set"), data={"train": DataSet(tmp_path)})
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "files", tmp_path / "set")
    ]
    assert losses[0] == losses[1]
    assert first.steps == again.steps == 2
    rows = manifest.read(tmp_path / "set" / "manifests" / "train.jsonl")
    assert [row.label for row in rows] == [
        row.label for row in manifest.read(tmp_path / "data" / "train.jsonl")
    ]
    assert sp.load(again.folders[0], families.tiny("whisper").module).active == ("a",)


def test_rows_and_records_are_data_too(tmp_path):
    tone = (0.1 * np.sin(np.arange(8000) / 5)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", tone, 8000)
    records = [
        {"audio": {"array": tone, "sampling_rate": 8000}, "text": "one"},
        {"audio": str(tmp_path / "a.wav"), "text": "two"},
    ]
    for data in (records, iter(records), [manifest.Row("x", tmp_path / "a.wav", text="one")]):
        (found,) = python.recipes_of(tiny.recipe(tmp_path), [], {"data": {"train": data}}).values()
        assert {row.text for row in manifest.read(found.data.train)} <= {"one", "two"}
        assert all(row.audio.is_file() for row in manifest.read(found.data.train))


def test_nothing_is_written_of_a_data_set_for_a_recipe_that_is_wrong(tmp_path):
    with pytest.raises(ConfigError, match="lrr"):
        sp.fit(tiny.recipe(tmp_path), data={"train": DataSet(tmp_path)}, optim={"lrr": 1})
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()


# ---- trainers of others -----------------------------------------------------------------------------


def trainer(folder, **options):
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.filterwarnings("ignore")  # Lightning's own, and its advice on loaders and modules in eval mode
def test_early_stopping_and_checkpoints_know_the_scores_and_the_adapter_is_saved(tmp_path):
    path = tiny.recipe(tmp_path, data={"valid": str(tmp_path / "data" / "train.jsonl")})
    (tmp_path / "data").mkdir(exist_ok=True)
    task, data = sp.build(path)
    seen = Seen()
    stop = EarlyStopping("valid_wer", patience=1)
    best = ModelCheckpoint(tmp_path / "best", monitor="valid_loss", filename="{epoch}-{valid_wer:.2f}")
    fitted = trainer(tmp_path, max_epochs=6, callbacks=[stop, best, seen])
    fitted.fit(task, data)
    assert fitted.current_epoch == 2  # the first error rate is as good as the second
    assert stop.stopped_epoch == 1
    assert {"valid_wer", "valid_loss", "train_loss"} <= fitted.callback_metrics.keys()
    assert "valid_wer=" in best.best_model_path
    assert seen.order[0] != seen.order[1]  # every epoch is shuffled anew
    assert sorted(clip for epoch in seen.order for clip in epoch) == sorted(2 * list(range(12)))
    assert (tmp_path / "run" / "a" / "adapter.json").is_file()
    assert sp.load(tmp_path / "run" / "a", families.tiny("whisper").module).active == ("a",)


class Seen(L.Callback):
    """Which clips came in which epoch, and the learning rate of each step."""

    def __init__(self):
        self.order, self.rates = [], []

    def on_train_epoch_start(self, trainer, task):
        self.order.append([])

    def on_train_batch_start(self, trainer, task, batch, index):
        self.order[-1] += [int(source.split("|")[-2]) for source in batch.sources]
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ends", [{"max_steps": 6}, {"max_epochs": 2}])
def test_the_learning_rate_follows_the_length_that_the_trainer_gives(tmp_path, ends):
    parts = {**tree(tmp_path), "optim": {"lr": 1e-2, "schedule": "linear"}}
    del parts["trainer"]
    task, data = sp.build(parts)
    seen = Seen()
    trainer(tmp_path, callbacks=[seen], **{"max_epochs": -1, **ends}).fit(task, data)
    steps = len(seen.rates)
    # A callback is called before the task sets the rate: it sees that of the step before.
    np.testing.assert_allclose(seen.rates[1:], [1e-2 * (1 - i / steps) for i in range(steps - 1)], rtol=0.2)
    assert (tmp_path / "run" / "a" / "adapter.json").is_file()


def test_stages_are_built_one_by_one(tmp_path):
    with pytest.raises(ConfigError, match=r"has the stages features, .*NAME:STAGE"):
        sp.build("restore/whisper_mask", data={"train": str(tmp_path), "valid": str(tmp_path)})
