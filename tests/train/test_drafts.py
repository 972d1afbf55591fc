"""A CTC layer that drafts for the frozen decoder: trained by a recipe, and the stock text stands."""

import json

import numpy as np
import pytest

from speech_peft.opening import loading
from speech_peft.transcribe.transcriber import Transcriber
from tests import tiny
from tests.train.test_diffusion import NONE


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An adapter folder with nothing in it but such a layer."""
    monkeypatch.setattr(tiny.families, "open_backbone", tiny.families.open_backbone)
    tiny.use_tiny_backbones()
    monkeypatch.setattr(loading, "open_backbone", tiny.families.open_backbone)
    recipe = tiny.recipe(tmp_path, {"form": "ctc", "blocks": 2}, adapters=NONE)
    return tiny.run(recipe, f"data.valid={tmp_path}/data/train.jsonl", "trainer.max_steps=2").folders[0]


def test_it_spells_by_itself_and_drafts_for_the_stock_decoder(folder):
    config = json.loads((folder / "adapter.json").read_text())["head_config"]["ctc"]
    assert config["blocks"] == 2
    noise = 0.2 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)

    def heard(**given) -> str:
        return next(Transcriber(context="fit", vad="none", **given).transcribe([noise])).text

    stock = heard(weights="tiny")
    assert (
        stock == heard(adapter=folder, decoder="verified") == heard(adapter=folder, decoder="autoregressive")
    )
    assert heard(adapter=folder) != stock
