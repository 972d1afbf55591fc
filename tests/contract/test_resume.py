"""Runs that are killed: wherever it happens, the same command ends with the adapter of an unbroken run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from speech_peft.backbones import base, families
from speech_peft.core.saved import swap
from speech_peft.errors import ConfigError, SpeechPeftError
from speech_peft.recipe import config
from speech_peft.train import fit, resume, state
from tests import tiny

EVERY = ["trainer.max_steps=4", "trainer.valid_every_steps=2", "trainer.save_every_steps=1"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()


def recipe(folder: Path, *more: str) -> tuple[Path, list[str]]:
    path = tiny.recipe(folder)
    return path, [*EVERY, f"data.valid={folder}/data/train.jsonl", "data.max_valid=2", *more]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "a" / "adapter.safetensors")


def validated(run: Path) -> list[int]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "valid_loss" in row]


class Killed(BaseException):
    """What a kill would end; nothing catches it."""


class KillAt(Callback):
    """Ends the process, as far as a test can, in a hook of one step."""

    def __init__(self, hook: str, step: int):
        setattr(self, hook, lambda trainer, *_, **__: self._kill(trainer, step))

    def _kill(self, trainer, step):
        if trainer.global_step == step:
            raise Killed


POINTS = [
    ("on_train_batch_end", 2),  # the state is saved, its validation not done
    ("on_validation_start", 2),
    ("on_validation_end", 4),  # the last one, whose adapter is written
    ("on_train_batch_start", 2),  # validated, the state is of before
    ("on_train_batch_end", 4),
    ("on_train_end", 4),
]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run that nobody ends: its adapter, and when it validated."""
    stock = families.open_backbone
    tiny.use_tiny_backbones()
    folder = tmp_path_factory.mktemp("whole")
    path, over = recipe(folder)
    tiny.run(path, *over)
    families.open_backbone = stock
    return adapter(folder / "run"), validated(folder / "run")


@pytest.mark.parametrize(("hook", "step"), POINTS)
def test_a_run_killed_anywhere_ends_as_if_unbroken_with_each_validation_once(tmp_path, unbroken, hook, step):
    path, over = recipe(tmp_path)
    given = config.read(str(path), over)
    with pytest.raises(Killed):
        fit.train(given, watchers=[KillAt(hook, step)])
    done = fit.train(given)
    wanted, steps = unbroken
    assert validated(tmp_path / "run") == steps == [2, 4]
    assert done.folders == [tmp_path / "run" / "a"]
    torch.testing.assert_close(adapter(tmp_path / "run"), wanted, rtol=0, atol=0)


def test_killed_between_two_renames_the_adapter_is_made_again(tmp_path, monkeypatch, unbroken):
    path, over = recipe(tmp_path)
    stock, calls = swap.os.replace, []

    def once(source, target):
        calls.append(target)
        stock(source, target)
        if Path(source).name == "a":  # the older adapter has left
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(swap.os, "replace", once)
        with pytest.raises(Killed):
            tiny.run(path, *over)
    assert not (tmp_path / "run" / "a").exists()
    tiny.run(path, *over, resume=True)
    torch.testing.assert_close(adapter(tmp_path / "run"), unbroken[0], rtol=0, atol=0)
    assert sorted(entry.name for entry in (tmp_path / "run").glob("[!.]*") if entry.is_dir()) == ["a"]


def test_the_adapter_of_a_finished_run_comes_back_or_its_loss_is_an_error(tmp_path):
    path, over = recipe(tmp_path)
    first = tiny.run(path, *over)
    wanted = adapter(tmp_path / "run")
    shutil.rmtree(first.folders[0])
    assert tiny.run(path, *over, resume=True).folders == first.folders  # best at its last step
    torch.testing.assert_close(adapter(tmp_path / "run"), wanted, rtol=0, atol=0)
    last = tmp_path / "run" / state.LAST
    content = state.load_state(last)
    (name,) = [key for key in content["callbacks"] if key.startswith("SaveAdapter")]
    content["callbacks"][name]["step"] = 2  # as if an earlier one had been better
    torch.save(content, last)
    shutil.rmtree(first.folders[0])
    with pytest.raises(SpeechPeftError, match=r"run/a: gone, and it was the best at step 2"):
        tiny.run(path, *over, resume=True)


def test_a_damaged_state_gives_way_to_the_one_before_it(tmp_path, capfd):
    path = tiny.recipe(tmp_path)
    over = ["optim.schedule=constant", "trainer.save_every_steps=2"]
    tiny.run(path, *over, "trainer.max_steps=6", f"out={tmp_path}/whole")
    tiny.run(path, *over, "trainer.max_steps=4")
    last = tmp_path / "run" / state.LAST
    last.write_bytes(last.read_bytes()[:2000])
    tiny.run(path, *over, "trainer.max_steps=6", resume=True)
    said = capfd.readouterr().err
    assert f"{last} cannot be used" in said
    assert "going on from the state before it" in said
    torch.testing.assert_close(adapter(tmp_path / "run"), adapter(tmp_path / "whole"), rtol=0, atol=0)


def test_without_any_whole_state_a_run_says_so_in_one_line(tmp_path):
    path = tiny.recipe(tmp_path)
    tiny.run(path, "trainer.max_steps=1")
    for name in (state.LAST, state.BEFORE):
        (tmp_path / "run" / name).write_bytes(b"half a file")
    with pytest.raises(SpeechPeftError, match=r"cannot be used.*--resume never"):
        tiny.run(path, "trainer.max_steps=2", resume=True)


def test_a_state_with_values_that_are_not_finite_is_refused(tmp_path):
    path = tiny.recipe(tmp_path)
    tiny.run(path, "trainer.max_steps=1")
    (tmp_path / "run" / state.BEFORE).unlink(missing_ok=True)
    last = tmp_path / "run" / state.LAST
    content = state.load_state(last)
    next(iter(content["state_dict"].values())).view(-1)[0] = float("nan")
    torch.save(content, last)
    with pytest.raises(SpeechPeftError, match="not finite"):
        tiny.run(path, "trainer.max_steps=2", resume=True)


def test_a_torn_last_line_of_the_metrics_does_not_stop_a_run(tmp_path):
    path = tiny.recipe(tmp_path)
    tiny.run(path, "trainer.max_steps=2", "optim.schedule=constant")
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes() + b'{"step": 2, "lo\xff')
    tiny.run(path, "trainer.max_steps=3", "optim.schedule=constant", resume=True)
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [1, 2, 3]


def test_no_folder_of_others_gives_way_to_an_adapter(tmp_path):
    path = tiny.recipe(tmp_path)
    own = tmp_path / "run" / "a"
    own.mkdir(parents=True)
    (own / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"run/a is a folder without an adapter in it"):
        tiny.run(path)
    assert (own / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_run_goes_on_where_its_folder_and_its_corpus_were_moved_to(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    path = tiny.recipe(old)
    tiny.run(path, "optim.schedule=constant", "trainer.max_steps=2")
    old.rename(new)
    over = ["optim.schedule=constant", f"out={new}/run", f"data.train={new}/data/train.jsonl"]
    done = tiny.run(new / path.name, *over, "trainer.max_steps=4", resume=True)
    assert (done.steps, done.folders) == (4, [new / "run" / "a"])


def test_a_run_does_not_go_on_with_other_clips(tmp_path):
    path = tiny.recipe(tmp_path)
    tiny.run(path, "trainer.max_steps=1")
    manifest = tmp_path / "data" / "train.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:6]))
    with pytest.raises(ConfigError, match=r"data\.train: .* trained with 12 clips, and now there are 6"):
        tiny.run(path, "trainer.max_steps=2", resume=True)


def test_a_run_does_not_go_on_with_other_weights(tmp_path):
    path = tiny.recipe(tmp_path)
    tiny.run(path, "trainer.max_steps=1")
    last = tmp_path / "run" / state.LAST
    content = state.load_state(last)
    content["run"]["base"] = "0" * 64
    torch.save(content, last)
    stock = base.Backbone.card
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            base.Backbone, "card", lambda self: stock(self).model_copy(update={"sha256": "1" * 64})
        )
        with pytest.raises(ConfigError, match="was trained on other weights: sha256 000000000000"):
            tiny.run(path, "trainer.max_steps=2", resume=True)


def test_a_second_run_into_one_folder_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "PATIENCE_SECONDS", 0.0)
    path = tiny.recipe(tmp_path)
    with resume.only_run(tmp_path / "run"), pytest.raises(SpeechPeftError, match="another training run"):
        tiny.run(path)
    assert tiny.run(path).steps == 6


def test_a_state_is_written_beside_itself_and_nowhere_else(tmp_path, monkeypatch):
    import tempfile

    def nowhere(*_, **__):
        raise OSError("no room in /tmp")

    monkeypatch.setattr(tempfile, "mkstemp", nowhere)
    tiny.run(tiny.recipe(tmp_path), "trainer.max_steps=1")
    assert state.load_state(tmp_path / "run" / state.LAST)["global_step"] == 1
