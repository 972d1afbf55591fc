"""Adapter folders: strict in both directions, complete or absent, and never a pickle."""

import json

import pytest
import torch
from torch import nn

from speech_peft.core import save
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from tests import toy


def adapted(**settings) -> AdaptedModel:
    return AdaptedModel(
        toy.toy(), toy.sites(), {"a": Bottleneck(**{"width": 4, "zero_up": False, **settings})}
    )


@pytest.fixture
def folder(tmp_path):
    return save.write(
        tmp_path / "runs" / "telephone", adapted(), "a", toy.CARD, recipe="task: asr\n", readme="# Card\n"
    )


def edit(folder, **changes) -> None:
    path = folder / "adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_holds_the_two_files_and_what_was_given(folder):
    assert {file.name for file in folder.iterdir()} == {
        "adapter.json",
        "adapter.safetensors",
        "recipe.yaml",
        "README.md",
    }
    content = json.loads((folder / "adapter.json").read_text())
    assert content["format"] == 1
    assert content["method"] == "bottleneck"
    assert content["sites"] == ["layers.0.ffn", "layers.1.ffn"]
    assert content["backbone"]["name"] == "toy"


def test_keys_are_the_site_and_the_parameter(folder):
    from safetensors import safe_open

    with safe_open(folder / "adapter.safetensors", "pt") as file:
        assert "layers.0.ffn.branch.down.weight" in file.keys()  # noqa: SIM118


def test_another_backbone_is_refused_by_name_width_and_depth(folder):
    other = toy.CARD.model_copy(
        update={"name": "whisper", "id": "openai/whisper-tiny", "dim": 384, "layers": 4}
    )
    with pytest.raises(
        ConfigError,
        match=r"trained on toy .*\(d=16, 2 layers\); you gave whisper .*\(d=384, 4 layers\)",
    ):
        save.read(folder).load_into(adapted(), "a", other)


def test_a_missing_and_a_left_over_tensor_are_refused_by_key(folder):
    with pytest.raises(
        ConfigError, match=r"holds 'layers\.\d\.ffn\.branch\.\w+\.bias', which this model has not"
    ):
        save.read(folder).load_into(adapted(bias=False), "a")
    with pytest.raises(ConfigError, match=r"lacks 'layers\.\d\.ffn\.branch\.norm\.\w+'"):
        save.read(folder).load_into(adapted(norm=True), "a")


def test_a_refused_file_changes_nothing_in_the_model(folder):
    model = adapted(norm=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConfigError):
        save.read(folder).load_into(model, "a")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_another_shape_is_refused_with_both_shapes(folder):
    with pytest.raises(ConfigError, match=r"has shape \(\d+(, \d+|,)\), expected \(\d+(, \d+|,)\)"):
        save.read(folder).load_into(adapted(width=5), "a")


def test_a_truncated_file_is_an_error_with_its_path(folder):
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ConfigError, match=r"adapter\.safetensors cannot be read"):
        save.read(folder).load_into(adapted(), "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, r"format 3; this version .* reads up to 2"),
        ({"method": "lorra"}, r"'lorra'.*'lora'"),
        ({"config": {"widht": 4}}, r"adapter\.json: .*widht"),
        ({"surprise": 1}, r"adapter\.json: .*surprise"),
    ],
)
def test_a_wrong_adapter_json_says_what_is_wrong(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ConfigError, match=rf"(?s){message}"):
        save.read(folder)


def test_a_folder_that_is_none_says_which_file_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"is no saved adapter: it has no adapter\.json$"):
        save.read(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="import_peft"):
        save.read(tmp_path)


def test_heads_are_saved_apart_and_loaded_as_strictly(tmp_path):
    heads = {"ctc": nn.Linear(3, 2), "pool": nn.Linear(2, 2)}
    save.write(
        tmp_path / "a", adapted(), "a", toy.CARD, heads=heads, head_config={"ctc": {"vocab": 2}, "pool": {}}
    )
    saved, fresh = save.read(tmp_path / "a"), nn.Linear(3, 2)
    assert saved.head_config["ctc"] == {"vocab": 2}
    saved.load_head("ctc", fresh)
    assert torch.equal(fresh.weight, heads["ctc"].weight)
    with pytest.raises(ConfigError, match="shape"):
        saved.load_head("ctc", nn.Linear(3, 4))


def test_writing_again_replaces_the_folder_and_leaves_nothing_beside_it(folder):
    save.write(folder, adapted(), "a", toy.CARD)
    assert [file.name for file in folder.parent.iterdir()] == ["telephone"]
    assert not (folder / "recipe.yaml").exists()


def test_a_failed_write_leaves_the_old_folder(folder, monkeypatch):
    before = (folder / "adapter.safetensors").read_bytes()

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(save, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save.write(folder, adapted(), "a", toy.CARD)
    assert (folder / "adapter.safetensors").read_bytes() == before


def test_the_digest_follows_the_tensors(folder, tmp_path):
    digest = save.read(folder).digest
    assert save.read(folder).digest == digest
    assert save.read(save.write(tmp_path / "b", adapted(), "a", toy.CARD)).digest != digest
