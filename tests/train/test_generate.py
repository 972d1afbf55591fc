"""A mel diffusion learns by a recipe: what it is told, and what it is refused."""

import pytest
import torch

from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from tests import tiny

KIND = {"method": "attention", "query": "frozen", "keys": "new:tokens", "out": "frozen", "rank": 4}
ADAPTERS = {
    "kind": {**KIND, "sites": ["layers.*.cross"]},
    "when": {"method": "timestamps", "width": 8},
}
LISTENER = {"name": "whisper", "weights": "tiny", "context": "fit"}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()
    return tiny.recipe(
        tmp_path,
        backbone={"name": "mel_diffusion", "weights": "tiny", "context": None},
        adapters=ADAPTERS,
        task={"name": "generate", "listener": LISTENER},
        data={"shift_seconds": 0.2},
        trainer={"max_steps": 4, "save_every_steps": 2},
    )


def weights(trained) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {
        f"{folder.name} {key}": value
        for folder in trained.folders
        for key, value in load_file(folder / "adapter.safetensors").items()
    }


def test_adapters_learn_and_a_run_that_goes_on_ends_where_a_whole_one_does(path, tmp_path):
    rate = "optim.schedule=constant"
    whole = tiny.run(path, rate, f"out={tmp_path}/whole")
    tiny.run(path, rate, f"out={tmp_path}/parts", "trainer.max_steps=2")
    parts = tiny.run(path, rate, f"out={tmp_path}/parts", resume=True)
    assert parts.steps == whole.steps == 4
    ours, theirs = weights(whole), weights(parts)
    assert any(value.any() for key, value in ours.items() if "when" in key and "up.weight" in key)
    assert any(value.any() for key, value in ours.items() if "kind" in key and "value" in key)
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, rtol=0, atol=1e-6)


def test_each_of_two_adapters_learns_without_the_other_and_no_batch_says_nothing(path, tmp_path):
    trained = tiny.run(path, "task.alone=1", "trainer.max_steps=8", f"out={tmp_path}/alone")
    found = weights(trained)
    assert any(value.any() for key, value in found.items() if "when" in key and "up.weight" in key)
    assert any(value.any() for key, value in found.items() if "kind" in key and "value" in key)


@pytest.mark.parametrize(
    ("over", "why"),
    [
        (["task.listener=null"], "adapter 'kind' attends to what it hears"),
        (["active=[when]", "train=[when]"], "no adapter attends"),
        (["adapters.kind.dim=48"], r"adapters\.kind\.dim: 48, and the listener's is 32"),
        (["backbone.name=ast"], "do not go together"),
    ],
)
def test_what_does_not_fit_together_is_refused(path, over, why):
    with pytest.raises(ConfigError, match=why):
        tiny.run(path, *over)
