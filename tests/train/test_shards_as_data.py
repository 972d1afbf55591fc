"""Shards as training data: tars hold what files held, and a run over them goes on as any other."""

import io
import json
import tarfile

import pytest
from safetensors.torch import load_file

from speech_peft.audio import manifest
from speech_peft.backbones import families
from speech_peft.recipe import config
from speech_peft.train.data import check
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def tars(rows, folder):
    """Two shards with a member of sound and one of words for each row."""
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for row in rows[number::2]:
                about = json.dumps({"duration": row.duration}).encode()
                parts = {"wav": row.audio.read_bytes(), "txt": row.text.encode(), "json": about}
                for extension, content in parts.items():
                    member = tarfile.TarInfo(f"{row.id}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


def adapter(run):
    return {name: tensor.tolist() for name, tensor in load_file(run / "a" / "adapter.safetensors").items()}


def test_a_run_over_tars_equals_one_over_their_files_and_is_resumed(tmp_path):
    path = tiny.recipe(tmp_path)
    shards = tars(manifest.read(tmp_path / "data/train.jsonl"), tmp_path / "shards")
    manifest.write(tmp_path / "index.jsonl", rows := manifest.read(shards))
    manifest.write(tmp_path / "files.jsonl", [named(row, tmp_path / "data") for row in rows])
    over = ["data.seconds_per_batch=2", "data.preload_hours=0", "optim.schedule=constant"]
    for name, data, steps in (
        ("files", "files.jsonl", (4,)),
        ("tars", "shards", (2, 4)),
        ("index", "index.jsonl", (4,)),
    ):
        given = [*over, f"out={tmp_path / name}", f"data.train={tmp_path / data}"]
        assert check.check(config.read(str(path), given)) == []
        for most in steps:
            trained = tiny.run(path, *given, f"trainer.max_steps={most}", resume=len(steps) > 1)
        assert not (tmp_path / name / "bad_samples.jsonl").exists()
        assert trained is not None
    assert adapter(tmp_path / "tars") == adapter(tmp_path / "files") == adapter(tmp_path / "index")


def named(row, folder):
    return manifest.Row(row.id, folder / f"{row.id}.wav", duration=row.duration, text=row.text)
