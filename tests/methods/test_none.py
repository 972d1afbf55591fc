"""No adapter: nothing is attached, nothing of it trains, and an empty file is its file."""

import torch

from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.methods.none import NoAdapter


def test_it_has_no_site_no_parameter_and_a_folder_like_any_other(tmp_path):
    backbone = tiny("ast")
    features = backbone.prepare(torch.randn(1, 8000), torch.tensor([8000]))
    before = backbone.encode(features).states
    model = AdaptedModel(backbone.module, backbone.sites(), {"probe": NoAdapter()})
    assert model.trainable("probe") == []
    assert torch.equal(backbone.encode(features).states, before)
    assert "probe (none, active): 0 sites, 0 parameters, 0 trained" in model.describe()
    saved = save.read(save.write(tmp_path / "probe", model, "probe", backbone.card()))
    assert saved.method == NoAdapter()
    saved.load_into(model, "probe", backbone.card())
