"""A decoder by diffusion from recipe to text: what trains, what is saved, and who writes with it."""

import json

import numpy as np
import pytest
import torch

from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from speech_peft.recipe.tasks import DiffusionConfig
from speech_peft.transcribe.transcriber import Transcriber
from tests import tiny

NONE = {"d": {"method": "none"}}


@pytest.fixture
def _tiny(monkeypatch):
    monkeypatch.setattr(tiny.families, "open_backbone", tiny.families.open_backbone)
    tiny.use_tiny_backbones()
    monkeypatch.setattr(loading, "open_backbone", tiny.families.open_backbone)


def decoder(**fields) -> dict:
    return {"form": "diffusion", **fields}


@pytest.mark.usefixtures("_tiny")
def test_a_recipe_trains_a_parallel_decoder_and_the_stock_one_writes_what_it_wrote(tmp_path):
    recipe = tiny.recipe(
        tmp_path, decoder(left=0.5, own=0.5, distil=0.5, ema=0.9, frame_drop=0.2), adapters=NONE
    )
    trained = tiny.run(recipe, f"data.valid={tmp_path}/data/train.jsonl", "trainer.max_steps=3")
    (folder,) = trained.folders
    assert json.loads((folder / "adapter.json").read_text())["head_config"]["diffusion"]["kind"] == "whisper"
    noise = 0.2 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)

    def heard(**given) -> str:
        return next(Transcriber(context="fit", vad="none", **given).transcribe([noise])).text

    base = heard(weights="tiny")
    assert (
        base == heard(adapter=folder, decoder="autoregressive") == heard(adapter=folder, decoder="verified")
    )
    assert isinstance(heard(adapter=folder), str)


@pytest.mark.usefixtures("_tiny")
def test_what_is_saved_is_the_running_mean_and_a_run_goes_on_from_both(tmp_path):
    recipe = tiny.recipe(tmp_path, decoder(ema=0.9), adapters=NONE)
    whole = tiny.run(recipe, "optim.schedule=constant", "trainer.max_steps=4", f"out={tmp_path}/whole")
    constant = "optim.schedule=constant"
    tiny.run(recipe, constant, "trainer.max_steps=2", f"out={tmp_path}/parts")
    parts = tiny.run(recipe, constant, "trainer.max_steps=4", f"out={tmp_path}/parts", resume=True)
    kept = [loading.load(run.folders[0]).diffusion.state_dict() for run in (whole, parts)]
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    state = torch.load(tmp_path / "whole/last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(kept[0]["mask_embedding"], state["average.mask_embedding"])
    assert not torch.equal(state["average.mask_embedding"], state["heads.diffusion.mask_embedding"])


@pytest.mark.usefixtures("_tiny")
def test_a_decoder_goes_on_from_one_that_was_saved(tmp_path):
    first = tiny.run(
        tiny.recipe(tmp_path, decoder(), adapters=NONE), "trainer.max_steps=2", f"out={tmp_path}/first"
    )
    weights = f"task.decoder.weights={first.folders[0]}"
    still = tiny.run(
        tiny.recipe(tmp_path, decoder(), adapters=NONE),
        weights,
        "optim.lr=1e-12",
        "trainer.max_steps=1",
        f"out={tmp_path}/still",
    )
    before, after = (loading.load(run.folders[0]).diffusion.state_dict() for run in (first, still))
    for key in before:
        torch.testing.assert_close(after[key], before[key])


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize(
    ("fields", "sites", "said"),
    [
        ({"train": "adapters"}, ["layers.*.ffn"], "no adapter sits in the decoder"),
        ({"train": "decoder"}, ["decoder.layers.*.ffn"], "does not run"),
        ({"train": "adapters"}, ["*.ffn"], "encoder and decoder"),
    ],
)
def test_adapters_that_would_not_learn_or_would_change_the_stock_decoder_are_refused(
    tmp_path, fields, sites, said
):
    adapters = {"a": {"method": "bottleneck", "width": 2, "sites": sites}}
    with pytest.raises(ConfigError, match=said):
        tiny.run(tiny.recipe(tmp_path, decoder(**fields), adapters=adapters))


def test_a_decoder_by_diffusion_is_told_by_its_form():
    assert DiffusionConfig(form="diffusion").kind == "whisper"
    with pytest.raises(ValueError, match="form"):
        DiffusionConfig(form="diffuse")


@pytest.mark.usefixtures("_tiny")
def test_what_is_saved_lies_between_the_stock_decoder_and_what_was_learned(tmp_path):
    kept = {}
    for learned in (1.0, 0.25):
        recipe = tiny.recipe(tmp_path, decoder(learned=learned), adapters=NONE)
        trained = tiny.run(recipe, "trainer.max_steps=2", f"out={tmp_path}/{learned}")
        kept[learned] = loading.load(trained.folders[0]).diffusion
    stock = kept[1.0].backbone.decoder.layers[0].fc1.weight
    whole, part = (kept[share].blocks[0].fc1.weight for share in (1.0, 0.25))
    assert not torch.equal(whole, stock)
    torch.testing.assert_close(part - stock, 0.25 * (whole - stock))
    assert torch.equal(kept[1.0].mask_embedding, kept[0.25].mask_embedding)
