"""Adapter folders: strict in both directions, complete or absent, and never a pickle."""

import json

import pytest
import torch
from torch import nn

from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.errors import ConfigError, OtherWeights
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
        ({"format": 5}, r"format 5; this version .* reads up to 4"),
        ({"method": "lorra"}, r"'lorra'.*'lora'"),
        ({"config": {"widht": 4}}, r"adapter\.json: .*widht"),
        ({"surprise": 1}, r"adapter\.json: .*surprise"),
        ({"format": "new"}, r"adapter\.json: format"),
        ({"sites": [f"s{i}" for i in range(10_001)]}, r"adapter\.json: sites: .*at most 10000"),
        ({"together": {f"a{i}": "../a" for i in range(2000)}}, r"adapter\.json: together: .*at most 64"),
        ({"method": ["lora"]}, r"adapter\.json: method"),
        ({"config": {"width": float("nan")}}, r"adapter\.json: not JSON: NaN"),
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

    monkeypatch.setattr(save.tensors, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save.write(folder, adapted(), "a", toy.CARD)
    assert (folder / "adapter.safetensors").read_bytes() == before


def test_the_digest_follows_the_tensors(folder, tmp_path):
    digest = save.read(folder).digest
    assert save.read(folder).digest == digest
    assert save.read(save.write(tmp_path / "b", adapted(), "a", toy.CARD)).digest != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.fill_(float("nan")), "not finite"),
        (lambda t: t.fill_(float("-inf")), "not finite"),
        (lambda t: t.fill_(1e30), "as large as"),
        (lambda t: t.to(torch.int32), "is int32 .* expected float32"),
        (lambda t: t.to(torch.bool), "is bool .* expected float32"),
        (lambda t: t.to(torch.complex64), "of type C64"),
    ],
)
@pytest.mark.parametrize("file", ["adapter", "head", "base"])
def test_tensors_that_no_training_gives_are_refused_in_every_file(tmp_path, file, change, message):
    from safetensors.torch import load_file, save_file

    head, base = nn.Linear(3, 2), {"layers.0.up.weight": torch.ones(2, 2)}
    folder = save.write(
        tmp_path / "a", adapted(), "a", toy.CARD, heads={"ctc": head}, head_config={"ctc": {}}, base=base
    )
    path = folder / f"{file}.safetensors"
    stored = load_file(path)
    key = sorted(stored)[0]
    save_file({**stored, key: change(stored[key])}, path)
    saved, model = save.read(folder), adapted()
    open_it = {
        "adapter": lambda: saved.load_into(model, "a"),
        "head": lambda: saved.load_head("ctc", head),
        "base": lambda: saved.load_base(base),
    }
    with pytest.raises(ConfigError, match=rf"{file}\.safetensors: {key} .*{message}"):
        open_it[file]()


def test_half_precision_on_disk_is_the_same_kind_of_number(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "adapter.safetensors"
    save_file({key: value.half() for key, value in load_file(path).items()}, path)
    save.read(folder).load_into(adapted(), "a")


def test_what_is_not_finite_is_not_saved_and_the_older_folder_stays(folder):
    model = adapted()
    with torch.no_grad():
        next(iter(model.parameters_of("a"))).fill_(float("nan"))
    before = (folder / "adapter.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"is not written: .* not finite"):
        save.write(folder, model, "a", toy.CARD)
    assert (folder / "adapter.safetensors").read_bytes() == before


def test_every_file_of_an_adapter_has_the_rights_of_a_new_file(folder):
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {new_file_mode(folder)}


def new_file_mode(folder) -> int:
    (folder / "new").touch()
    return (folder / "new").stat().st_mode & 0o777


def test_other_weights_of_the_same_shape_are_warned_of_by_their_hash(folder):
    edit(folder, backbone={**toy.CARD.model_dump(), "sha256": "a" * 64})
    saved = save.read(folder)
    saved.check_backbone(toy.CARD.model_copy(update={"sha256": "a" * 64}))
    saved.check_backbone(toy.CARD)  # made, not loaded: nothing to compare
    with pytest.warns(
        OtherWeights, match=r"trained on tests/toy with sha256 aaaaaaaaaaaa, and .* bbbbbbbbbbbb"
    ):
        saved.check_backbone(toy.CARD.model_copy(update={"sha256": "b" * 64}))


def test_adapters_that_ran_together_name_the_one_that_is_opened(folder):
    edit(folder, format=2, together={"other": "../other"})
    with pytest.raises(ConfigError, match=r'together.*expected one adapter at "\."'):
        save.read(folder)


def test_a_folder_whose_name_no_system_allows_is_none_too():
    with pytest.raises(ConfigError, match="is no saved adapter"):
        save.read("é" * 300)
