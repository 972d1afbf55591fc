"""Adapters that were trained together do together what they learned, whichever of them is opened."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from speech_peft.backbones import families
from speech_peft.classify.classifier import Classifier
from speech_peft.core.saved.save import read
from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from tests import tiny

TWO = {
    "low": {"method": "bottleneck", "width": 4, "zero_up": False, "sites": ["layers.0.ffn"]},
    "high": {"method": "lora", "rank": 2, "sites": ["layers.1.attn.[qv]"]},
}
AUDIO = 0.1 * np.random.default_rng(0).standard_normal(12_800).astype(np.float32)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()
    monkeypatch.setattr(loading, "open_backbone", families.open_backbone)


def train(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    path = tiny.recipe(folder, **{"adapters": TWO, "task": {"name": "classify"}, **changes})
    return tiny.run(path, "trainer.max_steps=3").folders[0].parent


@pytest.fixture
def run(tmp_path) -> Path:
    return train(tmp_path)


def manifest(folder: Path) -> dict:
    return json.loads((folder / "adapter.json").read_text())


def states(folder: Path) -> torch.Tensor:
    opened = loading.load(folder)
    features = opened.backbone.prepare(torch.from_numpy(AUDIO)[None], torch.tensor([len(AUDIO)]))
    with torch.no_grad():
        return opened.backbone.encode(features).states


def answers(folders: list[Path]) -> dict[str, np.ndarray]:
    (result,) = Classifier(folders).classify(AUDIO)
    return {name: heard.probabilities for name, heard in result.heard.items()}


def alone(folder: Path, out: Path) -> Path:
    """A copy that was told to run alone."""
    shutil.copytree(folder, out)
    found = manifest(out)
    del found["together"]
    (out / "adapter.json").write_text(json.dumps(found))
    return out


def test_whichever_is_opened_both_run_and_in_the_order_of_their_training(run, tmp_path):
    assert manifest(run / "low")["together"] == {"low": ".", "high": "../high"}
    assert manifest(run / "high")["together"] == {"low": "../low", "high": "."}
    assert torch.equal(states(run / "low"), states(run / "high"))
    for name in TWO:
        assert not torch.equal(states(alone(run / name, tmp_path / f"{name}_alone")), states(run / name))
    by_itself, both = answers([run / "high"]), answers([run / "low", run / "high"])
    told = Classifier([run / "high"]).about
    assert told["adapters_sha256"] == {"high": {name: read(run / name).digest for name in TWO}}
    assert told["adapter_sha256"] == {"high": read(run / "high").digest}
    np.testing.assert_allclose(both["low"], both["high"], atol=1e-6)  # one head, saved twice
    np.testing.assert_allclose(both["high"], by_itself["high"], atol=1e-6)
    others = answers([run / "high", tmp_path / "low_alone"])  # beside one that it does not run with
    np.testing.assert_allclose(others["high"], by_itself["high"], atol=1e-6)
    assert np.abs(others["low_alone"] - by_itself["high"]).max() > 1e-6


def test_one_whose_companion_is_missing_or_of_another_training_is_refused_by_name(run, tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)no saved adapter.*was trained together with 'high'"):
        loading.load(shutil.copytree(run / "low", tmp_path / "moved" / "low"))
    shutil.rmtree(run / "high")
    alone(run / "low", run / "high")
    with pytest.raises(ConfigError, match=r"high is of another training, with no other"):
        loading.load(run / "low")


def test_a_frozen_one_is_found_where_the_recipe_had_it_from(run, tmp_path):
    first = alone(run / "low", tmp_path / "earlier")
    adapters = {"old": {"from": str(first)}, "new": TWO["high"]}
    later = train(tmp_path / "later", adapters=adapters)
    assert manifest(later / "new")["together"] == {"old": "./../../../earlier", "new": "."}
    assert not (later / "old").exists()
    assert len(loading.load(later / "new").model.active) == 2


def test_who_is_trained_alone_is_written_as_older_versions_read_it(tmp_path):
    found = manifest(train(tmp_path, adapters={"low": TWO["low"]}) / "low")
    assert found["format"] == 1
    assert "together" not in found
