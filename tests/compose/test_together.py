"""Adapters that were trained apart run together from one folder, as the model that has them both."""

import shutil
from pathlib import Path

import pytest
import torch

from speech_peft.backbones import families
from speech_peft.compose.together import write_together
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import read, write
from speech_peft.decoders.ctc import CtcHead
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from speech_peft.registry import METHODS

AUDIO = 0.1 * torch.randn(1, 12_800, generator=torch.Generator().manual_seed(0))
BRIDGE = {"method": "bridge", "width": 8, "form": "replace"}
GAME = {"method": "lora", "rank": 2, "sites": ["decoder.layers.*.attn.[qv]", "decoder.layers.*.ffn.*"]}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(loading, "open_backbone", lambda name, weights, **options: lively())


def lively():
    backbone = families.tiny("whisper", context="fit")
    backbone.module.proj_out.weight.data.mul_(20)
    return backbone


def saved(folder: Path, fields: dict, **more) -> Path:
    """An adapter that does something."""
    backbone, rest = lively(), {key: value for key, value in fields.items() if key != "method"}
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": METHODS[fields["method"]](**rest)})
    torch.manual_seed(len(folder.name))
    for parameter in model.parameters_of("a"):
        torch.nn.init.normal_(parameter, std=0.3)
    return write(folder, model, "a", backbone.card(), **more)


def heard(folder: Path) -> tuple[str, torch.Tensor]:
    opened = loading.load(folder)
    backbone = opened.backbone
    with torch.inference_mode(), opened.model.using(*opened.runs):
        states = backbone.encode(backbone.prepare(AUDIO, torch.tensor([AUDIO.shape[1]]))).states
        return greedy(backbone, states)[0].text, states


def test_a_bridge_and_a_decoders_adapter_that_never_met_run_together(tmp_path):
    game, bridge = saved(tmp_path / "game", GAME), saved(tmp_path / "bridge", BRIDGE)
    both = write_together(tmp_path / "both", {"game": read(game), "bridge": read(bridge)})
    shutil.rmtree(game)  # it stands by itself
    text, states = heard(both)
    alone, by_bridge = heard(bridge)
    assert torch.equal(states, by_bridge)
    assert text != alone
    opened = loading.load(bridge)
    opened.model.add("game", read(both / "game").pinned)
    read(both / "game").load_into(opened.model, "game")
    backbone = opened.backbone
    with torch.inference_mode(), opened.model.using("game", *opened.runs):
        wanted = greedy(backbone, backbone.encode(backbone.prepare(AUDIO, torch.tensor([12_800]))).states)
    assert text == wanted[0].text


def test_what_cannot_run_beside_others_is_refused_with_the_reason(tmp_path):
    game, bridge = read(saved(tmp_path / "game", GAME)), read(saved(tmp_path / "bridge", BRIDGE))
    head = {"heads": {"ctc": CtcHead(32, "ab")}, "head_config": {"ctc": {"characters": "ab"}}}
    with_head = read(saved(tmp_path / "head", BRIDGE, **head))
    with pytest.raises(ConfigError, match="has ctc of its own; give it last"):
        write_together(tmp_path / "out", {"head": with_head, "game": game})
    write_together(tmp_path / "both", {"game": game, "head": with_head})
    assert loading.load(tmp_path / "both").ctc is not None
    with pytest.raises(ConfigError, match="was trained together with others"):
        write_together(tmp_path / "out", {"both": read(tmp_path / "both"), "bridge": bridge})
    with pytest.raises(ConfigError, match="letters, digits and _"):
        write_together(tmp_path / "out", {"a-b": game, "bridge": bridge})
    assert not (tmp_path / "out").exists()
