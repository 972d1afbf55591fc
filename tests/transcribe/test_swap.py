"""`Transcriber.swap`: another adapter on a base that stays open."""

import numpy as np
import pytest
import torch

import speech_peft as sp
from speech_peft.backbones.families import tiny
from speech_peft.core.saved.save import read, write
from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from speech_peft.transcribe.transcriber import Transcriber

CLIP = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
SITES = ("layers.*.attn.[qv]",)
KINDS = {
    "tel": sp.Lora(rank=2, sites=SITES),
    "far": sp.Lora(rank=2, sites=SITES),
    "other": sp.Bottleneck(width=3, sites=("*.ffn",), zero_up=False),
}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two LoRAs of one kind, and an adapter of another; every base is opened by what counts it."""
    backbone = tiny("whisper", context="fit")
    model = sp.AdaptedModel(backbone.module, backbone.sites(), KINDS)
    for i, parameter in enumerate(model.adapters.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(i))
    found = {name: write(tmp_path / name, model, name, backbone.card()) for name in KINDS}
    model.detach()
    found["opened"] = []

    def opened(*_, **__):
        found["opened"].append(tiny("whisper", context="fit"))
        return found["opened"][-1]

    monkeypatch.setattr(loading, "open_backbone", opened)
    return found


def heard(transcriber):
    (result,) = transcriber.transcribe([CLIP])
    return result.text, result.about["adapter_sha256"]


def opened(folder):
    return Transcriber(adapter=folder, engine="torch", vad="none", context="fit")


def test_after_a_swap_all_is_as_with_the_other_adapter_from_the_start_on_a_base_that_was_opened_once(folders):
    wanted = {name: heard(opened(folders[name])) for name in KINDS}
    assert len({text for text, _ in wanted.values()}) == 3, "these adapters are told apart by what they write"
    folders["opened"].clear()
    one = opened(folders["tel"])
    own = list(one.opened.model.parameters_of(*one.opened.runs))
    for name in ("far", "other", "tel", "tel", "far"):
        assert heard(one.swap(folders[name])) == wanted[name]
        if name == "far" and own:
            now = one.opened.model.parameters_of(*one.opened.runs)
            assert all(new is old for new, old in zip(now, own, strict=True)), "numbers for numbers"
            own = []
    assert len(folders["opened"]) == 1


def test_a_swap_that_is_refused_leaves_all_as_it_was(folders, tmp_path):
    one = opened(folders["tel"])
    before = heard(one)
    saved = read(folders["far"])
    wide = saved.backbone.model_copy(update={"dim": 2 * saved.backbone.dim})
    model = sp.load(folders["far"])
    other = write(tmp_path / "elsewhere", model, *model.methods, wide)
    with pytest.raises(ConfigError, match="this adapter was trained on"):
        one.swap(other)
    under_way = one.transcribe([CLIP, CLIP])
    next(under_way)
    with pytest.raises(ConfigError, match="under way"):
        one.swap(folders["far"])
    under_way.close()
    assert heard(one) == before


def test_an_adapter_that_translates_says_which_language_is_written_and_the_next_one_does_not(folders):
    (folders["tel"] / "recipe.yaml").write_text("task: {language: en}\ndata: {text: english}\n")
    (folders["far"] / "recipe.yaml").write_text("task: {language: en}\ndata: {text: null}\n")
    one = opened(folders["tel"])
    assert one.options.language == "en"
    assert one.swap(folders["far"]).options.language is None
    assert one.swap(folders["tel"]).options.language == "en"
    (folders["tel"] / "recipe.yaml").write_text("task: 3\n")
    assert opened(folders["tel"]).options.language is None
