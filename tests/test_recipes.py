"""Every bundled recipe parses, fits its backbone and takes a step."""

import pytest

from speech_peft import config
from speech_peft.backbones import base
from tests import tiny


@pytest.mark.parametrize("name", sorted(config.bundled()))
def test_a_bundled_recipe_takes_a_step_on_a_tiny_backbone(name, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "open_backbone", base.open_backbone)
    tiny.use_tiny_backbones()
    manifest = tiny.corpus(tmp_path, clips=12)  # a clip of every fold
    over = [f"data.train={manifest}", f"data.valid={manifest}", "data.workers=0", f"out={tmp_path}/run"]
    limits = ["trainer.max_minutes=null", "trainer.max_steps=1", "trainer.max_trainable_pct=99"]
    trained = tiny.run(name, *over, *limits)
    assert trained.steps == 1
    assert all((folder / "adapter.json").exists() for folder in trained.folders)


@pytest.mark.parametrize("name", sorted(config.bundled()))
def test_a_bundled_recipe_opens_with_its_command_and_what_it_is(name):
    command, what = config.find(name).read_text().splitlines()[:2]
    assert command.startswith(f"# python -m speech_peft.train {name} ")
    assert what.startswith("# ")
