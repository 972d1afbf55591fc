"""Every bundled recipe parses, fits its backbone and takes a step."""

import pytest

from speech_peft.backbones import families
from speech_peft.recipe import config
from speech_peft.train import stages as train_stages
from tests import tiny

SMALL = {
    "map": ["channels=8", "blocks=1"],
    "mask": ["channels=16", "blocks=1"],
    "istft": ["channels=16", "hidden=16", "blocks=1"],
    "wavefit": ["channels=16", "before=1", "up=[16,16,8,8,8]", "down=[8,8,8,16]", "mels=16", "steps=1"],
}
"""Decoders that take a step in no time."""
OWN = ["width=8", "layers=1", "heads=1", "room=16"]
"""The same of those by diffusion."""
JUDGES = "{scales: 1, periods: [3], scale_channels: 1, period_channels: 2}"


def _own_decoders(stages) -> list[str]:
    """Where a recipe says how large a decoder by diffusion is; a copy of Whisper's is as small as that."""
    kinds = {
        stage: getattr(getattr(recipe.task, "decoder", None), "kind", "") for stage, recipe in stages.items()
    }
    return [
        f"stages.{s}.task.decoder." if s else "task.decoder."
        for s, kind in kinds.items()
        if kind in ("smdm", "scratch")
    ]


def shrunk(name: str) -> list[str]:
    """Overrides that make a recipe as tiny as the backbones, of which two blocks are all there is."""
    manifest = str(config.find(name))  # any file: nothing is read from it
    stages = config.read_stages(name, [f"data.{part}={manifest}" for part in ("train", "valid")])
    if name.startswith("sweeps/") and stages[""].task.name == "classify":
        return ["task.layer=2", "data.cache=null"]  # adapters in both leave nothing to keep
    if name == "asr/whisper_language":
        return ["task.language=null"]  # the tiny Whisper knows nothing but English
    if name == "asr/whisper_views":  # its rooms are of an extra
        return ["data.degrade=[{kind: array, rooms: synthetic}, {kind: noise}]"]
    if name == "asr/bridge":
        return ["data.text=null"]  # the tiny corpus is translated into nothing
    if name == "generate/foley":
        return ["adapters.kind.dim=32"]  # of the tiny listener
    if not name.startswith("restore/"):
        return [f"{where}{given}" for where in _own_decoders(stages) for given in OWN]
    over = ["backbone.layer=1"]
    for stage, recipe in stages.items():
        prefix = f"stages.{stage}." if stage else ""
        fields = recipe.task.decoder or {}
        over += [f"{prefix}task.decoder.{given}" for given in SMALL.get(fields.get("name"), [])]
        if recipe.task.discriminators:
            over.append(f"{prefix}task.discriminators={JUDGES}")
    return over


@pytest.mark.parametrize("name", sorted(config.bundled()))
def test_a_bundled_recipe_takes_a_step_on_a_tiny_backbone(name, tmp_path, monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()
    manifest = tiny.corpus(tmp_path, clips=30, speakers=2)  # a clip of every class in every fold
    over = [f"data.train={manifest}", f"data.valid={manifest}", "data.workers=0", f"out={tmp_path}/run"]
    limits = ["trainer.max_minutes=null", "trainer.max_steps=1", "trainer.max_trainable_pct=99"]
    alone = ["trainer.devices=1", "trainer.strategy=auto"]  # contract/test_ddp.py has those of two
    trained = train_stages.run(
        config.read_stages(name, [*over, *limits, *alone, *shrunk(name)]), resume=False
    )
    assert trained.steps == 1
    assert all((folder / "adapter.json").exists() for folder in trained.folders)


@pytest.mark.parametrize("name", sorted(config.bundled()))
def test_a_bundled_recipe_opens_with_its_command_and_what_it_is(name):
    command, what = config.find(name).read_text().splitlines()[:2]
    assert command.startswith(f"# python -m speech_peft.train {name} ")
    assert what.startswith("# ")
