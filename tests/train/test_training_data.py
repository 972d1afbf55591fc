"""What a run finds out about its clips before the first step, and how its loaders end."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from speech_peft.audio.batch import DurationBatchSampler
from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.recipe import config
from speech_peft.train import fit
from speech_peft.train.data import check as data_check
from speech_peft.train.data.data import GridBatches
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def manifest(folder, name, *numbers, **fields):
    for number in numbers:
        soundfile.write(folder / f"{number}.wav", 0.1 * np.ones(8000), 16000)
    rows = [{"audio": f"{number}.wav", "text": "one two", **fields} for number in numbers]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def recipe(folder, train_path, *overrides):
    return config.read(str(tiny.recipe(folder)), [f"data.train={train_path}", *overrides])


def build(read):
    return fit.build(read, config.methods_of(read))[1]


def test_babble_over_one_utterance_is_refused_before_the_first_step(tmp_path):
    read = recipe(tmp_path, manifest(tmp_path, "m.jsonl", 1), "data.degrade=[{kind: babble}]")
    for start in (build, data_check.check):
        with pytest.raises(ConfigError, match=r"data\.train: .*babble is made of other"):
            start(read)


@pytest.mark.parametrize("name", ["m.jsonl", "copy.jsonl"])
def test_validating_on_training_rows_is_told_whatever_the_manifest_is_called(tmp_path, capsys, name):
    path = manifest(tmp_path, "m.jsonl", 1, 2, 3)
    (tmp_path / name).write_bytes(path.read_bytes())
    read = recipe(tmp_path, path, f"data.valid={tmp_path / name}")
    build(read)
    assert "warning: data.valid: 3 of 3 rows are training rows too" in capsys.readouterr().err
    assert "3 of 3 rows are training rows too" in data_check.check(read)[0]


def test_validating_on_other_rows_is_not_remarked_on(tmp_path, capsys):
    read = recipe(
        tmp_path, manifest(tmp_path, "m.jsonl", 1, 2), f"data.valid={manifest(tmp_path, 'v.jsonl', 3)}"
    )
    build(read)
    assert "warning" not in capsys.readouterr().err
    assert data_check.check(read) == []


def test_check_refuses_recordings_that_are_not_there(tmp_path):
    (tmp_path / "m.csv").write_text("audio,text\nnowhere.wav,hello\n")
    with pytest.raises(ConfigError, match=r"data\.train: 1 of 1 recordings are not there.*nowhere\.wav"):
        data_check.check(recipe(tmp_path, tmp_path / "m.csv"))
    path = manifest(tmp_path, "m.jsonl", 1, 2, 3)
    (tmp_path / "2.wav").unlink()
    (note,) = data_check.check(recipe(tmp_path, path, "data.max_bad_fraction=0.5"))
    assert "1 of 3 recordings are not there" in note


def test_clips_with_a_length_in_the_manifest_are_not_opened_before_the_first_step(tmp_path, monkeypatch):
    path = manifest(tmp_path, "m.jsonl", *range(5), duration=0.5)
    (tmp_path / "m.jsonl").write_text(
        path.read_text() + '{"id": "long", "audio": "0.wav", "text": "x", "duration": 99.0}\n'
    )

    def refused(*_):
        raise AssertionError("a recording was opened")

    monkeypatch.setattr("speech_peft.train.data.data.io.info", refused)
    data = build(recipe(tmp_path, path, "data.preload_hours=0", "data.max_bad_fraction=0.5"))
    assert data.train_seconds.tolist() == [0.5] * 5
    assert [bad.reason for bad in data.bad] == ["lasts 99.00 s; wanted 0.1 to 30 s"]


def test_planning_an_epoch_copies_no_clip_that_is_already_in_a_batch(monkeypatch):
    room, seen = DurationBatchSampler._room, []

    def noted(self, durations):
        seen.append(durations.base is not None)
        return room(self, durations)

    monkeypatch.setattr(DurationBatchSampler, "_room", noted)
    sampler = DurationBatchSampler(np.linspace(1, 9, 500), 20.0)
    assert sorted(index for batch in sampler for index in batch) == list(range(500))
    assert all(seen)


def test_grid_batches_hold_every_clip_once():
    lengths = [8000, 16000, 8000, 24000, 8000]
    batches = list(GridBatches(lengths, 16000, seed=0, rank=0, world=1, shuffle=True))
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3, 4]
    assert all(len({lengths[index] for index in batch}) == 1 for batch in batches)


@pytest.mark.slow
def test_an_error_while_workers_load_ends_the_process():
    script = """
import time
from torch.utils.data import Dataset
from speech_peft.train.data import workers

class Slow(Dataset):
    def __getitem__(self, place):
        time.sleep(0.01 if place < 2 else 3600)  # a worker that will not come back by itself

workers.gather = lambda clips: None
held = iter(workers.loader(Slow(), [[0], [1], [2], [3]], 2))
next(held)
raise RuntimeError("of the main process")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "of the main process" in ended.stderr
