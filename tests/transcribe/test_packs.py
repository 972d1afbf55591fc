"""Recordings of several languages in one batch, each with the adapter of its own."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import speech_peft as sp
from speech_peft.backbones.families import tiny
from speech_peft.compose.packs import Packs
from speech_peft.core.saved.save import write
from speech_peft.errors import ConfigError
from speech_peft.opening.loading import Opened
from speech_peft.opening.together import Together
from speech_peft.transcribe import choosing
from speech_peft.transcribe.transcriber import Transcriber
from speech_peft.transcribe.writers import as_json

RATE = 16_000
CODES = {"en": 5, "de": 6, "fr": 7}
PACKS = {
    "de": sp.Lora(rank=2, sites=("layers.*.attn.[qv]", "decoder.layers.*.cross.[qv]")),
    "fr": sp.Bottleneck(width=4, sites=("layers.*.ffn",), zero_up=False),
    "slavic": sp.Lora(rank=2, sites=("decoder.layers.*.attn.[qv]",)),
}
WAVES = {
    name: (level * np.random.default_rng(i).uniform(-1, 1, RATE)).astype(np.float32)
    for i, (name, level) in enumerate({"de": 0.3, "fr": 0.2, "en": 0.1, "unsure": 0.05}.items())
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Packs of a tiny Whisper that tells a language by how loud a clip is."""
    backbone = tiny("whisper", context="fit")
    backbone.generation = replace(backbone.generation, languages=CODES, tasks={"transcribe": 8})
    model = sp.AdaptedModel(backbone.module, backbone.sites(), PACKS).eval()
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    for name in PACKS:
        write(tmp_path / name, model, name, backbone.card())
    (tmp_path / "packs.json").write_text('{"groups": {"slavic": ["cs", "pl"]}, "least": 0.6}')
    parts = {name: (name, Opened(backbone, model, None, {}, (name,))) for name in sorted(PACKS)}
    monkeypatch.setattr(choosing, "load_together", lambda *_, **__: Together(backbone, model, parts))
    monkeypatch.setattr(choosing, "detect_language", lambda _, states: [_told(s) for s in states])
    plain, heard = backbone.prepare, {}

    def prepare(audio, lengths, pad_to=0):
        features = plain(audio, lengths, pad_to)
        for clip, values in zip(audio, features.values, strict=True):
            heard[float(values.sum())] = float(clip.abs().max())
        return features

    def encode(features, ctx=None, own=backbone.encode):
        encoded = own(features) if ctx is None else own(features, ctx)
        loud = torch.tensor([heard[float(values.sum())] for values in features.values])
        LOUD.update({id_of(states): float(level) for states, level in zip(encoded.states, loud, strict=True)})
        return encoded

    monkeypatch.setattr(backbone, "prepare", prepare)
    monkeypatch.setattr(backbone, "encode", encode)
    return tmp_path


LOUD: dict[float, float] = {}


def id_of(states: torch.Tensor) -> float:
    return float(states.double().sum())


def _told(states: torch.Tensor) -> dict[str, float]:
    level = LOUD[id_of(states)]
    name = min(WAVES, key=lambda one: abs(np.abs(WAVES[one]).max() - level))
    return {"en": 0.55, "de": 0.45} if name == "unsure" else {code: 0.9 * (code == name) for code in CODES}


def heard(folder, *names: str, **more):
    asked = {"vad": "none", "packs": folder, "engine": "torch", **more}
    return list(Transcriber(**asked).transcribe([WAVES[name] for name in names]))


def test_a_batch_of_several_languages_reads_as_each_does_alone(folder):
    together = heard(folder, *WAVES)
    assert [list(r.chosen[0][1].adapters) for r in together] == [["de"], ["fr"], [], []]
    assert [r.language for r in together] == ["de", "fr", "en", "en"]
    assert "less sure than 0.6" in together[3].chosen[0][1].why
    assert [r.text for r in together] == [heard(folder, name)[0].text for name in WAVES]
    assert together[3].text == heard(folder, "unsure", language="en")[0].text
    assert together[0].text != heard(folder, "de", language="fr")[0].text, "packs do something"
    written = json.loads(json.dumps(as_json(together[0])))["chosen"]
    assert written == [{"start": 0.0, "adapters": {"de": 1.0}, "language": "de", "why": "language de (0.90)"}]


def test_a_language_is_told_by_the_beginning_of_a_window_and_all_of_it_is_written(folder, monkeypatch):
    monkeypatch.setattr(choosing, "TELLING_SECONDS", 0.5)
    transcriber, lengths = Transcriber(vad="none", packs=folder, engine="torch"), []
    listen = transcriber.chooser.listen
    frames = transcriber.backbone.prepare(torch.zeros(1, RATE // 2), torch.tensor([RATE // 2])).values.shape

    def listened(features):
        lengths.append(features.values.shape[1:])
        return listen(features)

    monkeypatch.setattr(transcriber.chooser, "listen", listened)
    found = list(transcriber.transcribe([WAVES["de"], WAVES["en"]]))
    assert set(lengths) == {frames[1:]}
    for name, result in zip(("de", "en"), found, strict=True):
        assert result.text == heard(folder, name, language=name)[0].text


def test_the_states_of_a_mixed_batch_are_those_of_single_ones(folder):
    transcriber = Transcriber(vad="none", packs=folder)
    model, backbone = transcriber.opened.model, transcriber.backbone
    audio = torch.from_numpy(np.stack([WAVES["de"], WAVES["fr"], WAVES["en"]]))
    features = backbone.prepare(audio, torch.full((3,), RATE))
    with torch.no_grad(), model.using_rows("de", "fr", None):
        mixed = backbone.encode(features).states
    for row, names in enumerate((("de",), ("fr",), ())):
        with torch.no_grad(), model.using(*names):
            torch.testing.assert_close(
                mixed[row], backbone.encode(features).states[row], atol=1e-5, rtol=1e-5
            )


def test_a_recording_of_two_languages_is_heard_stretch_by_stretch(folder):
    gap = np.zeros(3 * RATE, np.float32)
    each = [np.concatenate([WAVES[name], gap]) for name in ("de", "fr")]
    by_segment = Transcriber(vad="energy", packs=folder, packs_by="segment")
    (found,) = by_segment.transcribe([np.concatenate(each)])
    assert [list(choice.adapters) for _, choice in found.chosen] == [["de"], ["fr"]]
    (first,) = Transcriber(vad="energy", packs=folder).transcribe(each[:1])
    (as_one,) = Transcriber(vad="energy", packs=folder, language="de").transcribe([np.concatenate(each)])
    texts, german = ([segment.text for segment in one.segments] for one in (found, as_one))
    assert texts[0] == first.text == german[0]
    assert texts[1] != german[1]


def test_where_there_are_no_other_languages_it_is_heard_which_of_the_packs_it_is(folder):
    (folder / "packs.json").write_text('{"groups": {"slavic": ["cs"]}, "least": 0.6, "closed": true}')
    (unsure,) = heard(folder, "unsure")
    assert unsure.chosen[0][1].why == "language de (1.00)"


def test_a_language_gets_its_own_pack_that_of_its_group_or_none(folder):
    packs = Packs.read(folder)
    given = ("de", "de-AT", "pl", "it")
    assert [packs.pack_of(language) for language in given] == ["de", "de", "slavic", None]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"adapter": "x"}, "a folder of packs or one adapter"),
        ({"engine": "ct2"}, "cannot change it; take torch"),
        ({"packs": "nowhere"}, "nowhere holds no adapters in folders named by languages"),
    ],
)
def test_what_packs_cannot_be_is_refused(folder, more, message):
    with pytest.raises(ConfigError, match=message):
        heard(folder, "de", **more)


def test_a_folder_that_names_no_language_is_refused(folder):
    (folder / "slavic").rename(folder / "Noise!")
    with pytest.raises(ConfigError, match=r"'Noise!' is no BCP-47 tag"):
        Packs.read(folder)


def test_adapters_are_put_into_a_folder_by_their_languages(folder, tmp_path_factory, capsys):
    from speech_peft.cli import packs as command

    out = tmp_path_factory.mktemp("packs")
    given = [f"pt-BR={folder / 'de'}", f"south={folder / 'fr'}"]
    assert command.main(["make", str(out), *given]) == 2
    assert "of a group say --group south=cs,pl" in capsys.readouterr().err
    assert not list(out.iterdir())
    assert (
        command.main(["make", str(out), *given, "--group", "south=it,es", "--least", "0.7", "--closed"]) == 0
    )
    assert Packs.read(out).settings.closed
    assert Packs.read(out).least == 0.7
    assert command.main(["list", str(out)]) == 0
    assert "south        bottleneck" in capsys.readouterr().out
    assert command.main(["list", str(out), "--language", "es"]) == 0
    assert capsys.readouterr().out == "south\n"
