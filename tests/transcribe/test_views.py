"""Several channels, and an adapter that listens to all: which are heard, and whose text is given."""

import numpy as np
import pytest
import torch

import speech_peft as sp
from speech_peft.audio import io
from speech_peft.backbones.families import tiny
from speech_peft.core.saved.save import write
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.decoders.words.surest import surest
from speech_peft.folders.inputs import gather
from speech_peft.methods.attention import Attention
from speech_peft.opening import loading
from speech_peft.transcribe.transcriber import Transcriber
from speech_peft.transcribe.writers import as_json
from tests.contract.laws import fill

RATE = 16_000
SOUND = 0.1 * np.random.default_rng(0).standard_normal((2 * RATE, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An adapter of a tiny Whisper that listens to other microphones, one that does not, and a recording."""
    backbone = tiny("whisper", context="fit")
    methods = {
        "views": Attention(keys="views", rank=4, window=1),
        "deaf": sp.Lora(sites=("layers.*.attn.q",)),
    }
    model = sp.AdaptedModel(backbone.module, backbone.sites(), methods)
    for name in methods:
        fill(model, name, 0)
        write(tmp_path / name, model, name, backbone.card())
    model.detach()
    monkeypatch.setattr(loading, "open_backbone", lambda *_, **__: backbone)
    io.save(tmp_path / "array.wav", SOUND, RATE, "FLOAT")
    for channel in range(3):
        io.save(tmp_path / f"{channel}.wav", SOUND[:, channel], RATE, "FLOAT")
    names = ", ".join(f'"{channel}.wav"' for channel in range(3))
    (tmp_path / "list.jsonl").write_text(f'{{"audio_filepath": [{names}]}}\n')
    return tmp_path


def heard(adapter, given, monkeypatch, **options):
    """The result, and the states of what was encoded."""
    seen: list[torch.Tensor] = []
    transcriber = Transcriber(adapter=adapter, vad="none", engine="torch", **options)
    encode = transcriber.engine.encode  # type: ignore[union-attr]
    monkeypatch.setattr(
        transcriber.engine, "encode", lambda features: seen.append(encode(features)) or seen[-1]
    )
    (result,) = transcriber.transcribe(given)
    transcriber.opened.model.detach()
    assert result.error is None
    return result, seen[0]


def test_channels_samples_and_files_are_heard_alike_each_with_the_others(folder, monkeypatch):
    result, states = heard(folder / "views", SOUND, monkeypatch)
    assert len(states) == 3
    _, alone = heard(folder / "views", SOUND[:, 0], monkeypatch)
    assert (states[0] - alone[0]).abs().max() > 1e-3
    ((start, view),) = result.views
    assert start == 0
    assert view in (1, 2, 3)
    assert as_json(result)["views"] == [{"start": 0.0, "microphone": view}]
    for given in (folder / "array.wav", list(gather([folder / "list.jsonl"], io.AUDIO_SUFFIXES))):
        again, same = heard(folder / "views", given, monkeypatch)
        torch.testing.assert_close(same, states)
        assert (again.text, again.views) == (result.text, result.views)
    _, other = heard(folder / "views", SOUND[:, [0, 2, 1]], monkeypatch)
    torch.testing.assert_close(other, states[[0, 2, 1]])


def test_one_microphone_is_heard_as_if_nobody_listened(folder, monkeypatch):
    alone, states = heard(folder / "views", SOUND[:, 0], monkeypatch)
    _, first = heard(folder / "views", SOUND, monkeypatch, channels="first")
    plain, bare = heard(None, SOUND[:, 0], monkeypatch)
    assert torch.equal(states, bare)
    assert torch.equal(first, bare)
    assert (alone.text, alone.views) == (plain.text, ())
    assert "views" not in as_json(alone)


def test_a_silent_microphone_is_neither_listened_to_nor_chosen(folder, monkeypatch):
    sound = SOUND.copy()
    sound[:, 1] = 0
    _, states = heard(folder / "views", sound[:, [0, 2]], monkeypatch)
    for silent in (sound, sound[:, [1, 0, 2]]):
        result, with_it = heard(folder / "views", silent, monkeypatch)
        there = np.flatnonzero(silent.any(0))
        torch.testing.assert_close(with_it[there], states)
        assert result.views[0][1] - 1 in there


def test_where_nobody_listens_channels_are_one_recording(folder, monkeypatch):
    result, states = heard(folder / "deaf", folder / "array.wav", monkeypatch)
    assert len(states) == 1
    assert result.views == ()


def test_the_text_is_of_the_view_with_the_likeliest_tokens_that_has_words_and_no_loop():
    readings = [
        Decoded("yes", (1,), -0.4, 0.0),
        Decoded("", (), -0.1, 0.0),
        Decoded("so " * 200, (1,), -0.1, 0.0),
        Decoded("no", (1,), -0.3, 0.0),
        Decoded("but", (1,), -0.2, 0.0),
    ]
    assert surest(readings, [True, True, True, True, False]) == 3
    assert surest(readings[1:2], [True]) == 0
