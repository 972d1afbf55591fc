"""`--speaker-reference`: who is wanted is heard once, and asked for where an adapter listens."""

import numpy as np
import pytest
import torch

import speech_peft as sp
from speech_peft.audio import io
from speech_peft.backbones.families import tiny
from speech_peft.core.saved.save import write
from speech_peft.errors import AudioError, ConfigError
from speech_peft.methods.attention import Attention
from speech_peft.opening import loading
from speech_peft.transcribe.transcriber import Transcriber
from tests.contract.laws import fill

RATE = 16_000
NOISE = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An adapter of a tiny Whisper that listens, one that does not, and recordings: noise and silence."""
    backbone = tiny("whisper", context="fit")
    methods = {"speaker": Attention(rank=4), "deaf": sp.Lora(sites=("layers.*.attn.q",))}
    model = sp.AdaptedModel(backbone.module, backbone.sites(), methods)
    for name in methods:
        fill(model, name, 0)
        write(tmp_path / name, model, name, backbone.card())
    model.detach()
    monkeypatch.setattr(loading, "open_backbone", lambda *_, **__: backbone)
    io.save(tmp_path / "noise.wav", NOISE, RATE)
    io.save(tmp_path / "silence.wav", 0 * NOISE, RATE)
    return tmp_path


def states(folder, reference, monkeypatch) -> torch.Tensor:
    """What the decoder is given of the noise."""
    seen: list[torch.Tensor] = []
    heard = Transcriber(
        adapter=folder / "speaker", speaker_reference=folder / reference, vad="none", engine="torch"
    )
    encode = heard.engine.encode  # type: ignore[union-attr]
    monkeypatch.setattr(heard.engine, "encode", lambda features: seen.append(encode(features)) or seen[-1])
    (result,) = heard.transcribe(NOISE)
    assert result.error is None
    heard.opened.model.detach()
    return seen[0]


def test_a_reference_changes_what_is_heard_and_a_silent_one_does_not(folder, monkeypatch):
    heard, silent = (states(folder, name, monkeypatch) for name in ("noise.wav", "silence.wav"))
    backbone = loading.open_backbone("whisper", "")
    bare = backbone.encode(backbone.prepare(torch.from_numpy(NOISE)[None], torch.tensor([len(NOISE)]))).states
    torch.testing.assert_close(silent, bare)
    assert (heard - bare).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("adapter", "reference", "reason"),
    [
        ("speaker", None, r"layers\.0\.attn: the adapter listens to a recording of the speaker"),
        ("deaf", "noise.wav", "no adapter here listens to one"),
        (None, "noise.wav", "no adapter here listens to one"),
    ],
)
def test_a_listener_without_a_reference_and_a_reference_for_nobody_are_refused(
    folder, adapter, reference, reason
):
    given = {"speaker_reference": reference and folder / reference}
    with pytest.raises(ConfigError, match=reason):
        Transcriber(adapter=adapter and folder / adapter, **given)


def test_a_reference_that_is_no_sound_is_said(folder):
    (folder / "text.wav").write_text("nothing")
    with pytest.raises(AudioError, match=r"text\.wav"):
        Transcriber(adapter=folder / "speaker", speaker_reference=folder / "text.wav")


def test_what_listens_is_not_swapped_under_a_reference_nor_in_without_one(folder):
    listening = Transcriber(
        adapter=folder / "speaker", speaker_reference=folder / "noise.wav", engine="torch", vad="none"
    )
    with pytest.raises(ConfigError, match="opened anew, with its speaker_reference"):
        listening.swap(folder / "deaf")
    listening.opened.model.detach()
    deaf = Transcriber(adapter=folder / "deaf", engine="torch", vad="none")
    with pytest.raises(ConfigError, match="opened anew, with its speaker_reference"):
        deaf.swap(folder / "speaker")
