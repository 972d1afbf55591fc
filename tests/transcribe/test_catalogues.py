"""`--adapter auto:FOLDER`: what suits each recording is chosen, and runs as it is or as a weighed sum."""

import numpy as np
import pytest
import torch

import speech_peft as sp
from speech_peft.backbones.families import tiny
from speech_peft.cli import adapters as command
from speech_peft.compose.cards.card import AdapterCard, write_card
from speech_peft.core.saved.save import write
from speech_peft.errors import ConfigError
from speech_peft.opening import loading, probing
from speech_peft.transcribe import catalogues
from speech_peft.transcribe.transcriber import Transcriber
from speech_peft.transcribe.writers import as_json

RATE = 16_000
SITES = ("layers.*.attn.[qv]",)
LOUD, QUIET = (
    (level * np.random.default_rng(i).standard_normal((3, RATE))).astype(np.float32)
    for i, level in enumerate((0.3, 0.003))
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two LoRAs of a tiny Whisper: one for loud clips, one for quiet ones."""
    backbone = tiny("whisper", context="fit")
    kinds = {"loud": sp.Lora(rank=2, sites=SITES), "quiet": sp.Lora(rank=3, sites=SITES)}
    model = sp.AdaptedModel(backbone.module, backbone.sites(), kinds).eval()
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    base = backbone.card().model_copy(update={"sha256": "a" * 64})
    for name in kinds:
        write(tmp_path / name, model, name, base)
    model.detach()
    monkeypatch.setattr(backbone, "card", lambda: base)
    monkeypatch.setattr(loading, "open_backbone", lambda *_, **__: backbone)
    monkeypatch.setattr(catalogues, "open_backbone", lambda *_, **__: backbone)
    for name, clips in (("loud", LOUD), ("quiet", QUIET)):
        features = backbone.prepare(torch.from_numpy(clips), torch.full((3,), RATE))
        monkeypatch.setattr(probing, "features_of", lambda *_, own=features: iter([own]))
        card = AdapterCard(channel=(name,), sound=probing.sound_on(backbone, "clips"))
        write_card(tmp_path / name, card)
    return tmp_path


def test_each_recording_is_heard_with_what_suits_it_and_nothing_suits_what_is_unlike_all(folder):
    tone = np.sin(np.arange(RATE) / 3).astype(np.float32)
    transcriber = Transcriber(adapter=f"auto:{folder}", vad="none")
    found = list(transcriber.transcribe([LOUD[0], QUIET[0], tone]))
    transcriber.opened.model.detach()
    assert [list(r.chosen[0][1].adapters) for r in found] == [["loud"], ["quiet"], []]
    assert "times as far as its own" in as_json(found[0])["chosen"][0]["why"]
    assert "nothing suits" in found[2].chosen[0][1].why
    single = list(Transcriber(adapter=folder / "quiet", vad="none", engine="torch").transcribe([QUIET[0]]))
    assert single[0].text == found[1].text


def test_a_card_that_weighs_its_adapter_is_obeyed(folder):
    write_card(folder / "quiet", AdapterCard(channel=("quiet",), weight=0.5))
    transcriber = Transcriber(adapter=f"auto:{folder}", vad="none", request="quiet")
    (found,) = transcriber.transcribe([QUIET[0]])
    ((_, choice),) = found.chosen
    assert dict(choice.adapters) == {"quiet": 0.5}
    assert str(choice).startswith("0.5 x quiet: its card says 100% of what was asked")
    model, (name,) = transcriber.opened.model, choice.runs
    x = torch.randn(1, 4, 32)
    for site in model.sites["quiet"]:
        y = torch.zeros(1, 4, 32)
        whole, half = (model.at(n, site)(x, y, sp.Context()) for n in ("quiet", name))
        torch.testing.assert_close(half, 0.5 * whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"adapter": "x", "request": "czech"}, "is for an adapter of a catalogue"),
        ({"adapter": "auto:nowhere"}, "nowhere holds no adapter"),
    ],
)
def test_what_no_catalogue_can_be_is_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        Transcriber(**more)


def test_adapters_are_found_from_the_command_line(folder, capsys):
    assert command.main(["card", str(folder / "loud"), "--language", "cs", "--title", "Loud"]) == 0
    assert "language    cs" in capsys.readouterr().out
    assert command.main(["search", "czech loud", "-c", str(folder), "-k", "1"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("  loud ")
    assert output.endswith("take 1 x loud\n")
    assert command.main(["search", "icelandic", "-c", str(folder)]) == 1
    assert "nothing suits" in capsys.readouterr().out
    assert command.main(["search", "-c", str(folder)]) == 2
    assert "give words, --audio, or both" in capsys.readouterr().err
