"""AST at the length of the audio: positions follow, the native length is the stock model."""

import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.errors import ConfigError

NATIVE = 256 * 160  # samples of the 256 frames of the tiny AST


def ast(context):
    return tiny("ast", context=context)


def noise(samples):
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0)), torch.tensor([samples])


def test_at_its_native_length_the_fitted_ast_is_the_stock_one():
    fit, full = ast("fit"), ast("full")
    with torch.no_grad():
        one, other = fit.encode(fit.prepare(*noise(NATIVE))), full.encode(full.prepare(*noise(NATIVE)))
    assert torch.equal(one.states, other.states)
    assert torch.equal(one.pooled, other.pooled)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 5.0])
def test_no_more_is_encoded_than_the_grid_asks_for(seconds):
    backbone = ast("fit")
    features = backbone.prepare(*noise(int(16000 * seconds)))
    frames = (backbone.padded_samples(int(16000 * seconds)) - 400) // 160 + 1
    assert features.values.shape[1] == frames
    encoded = backbone.encode(features)
    assert encoded.states.shape[1] == (frames - 16) // 16 + 1
    assert encoded.mask.any()


def test_positions_are_stretched_along_time_and_not_across_bands():
    backbone = ast("fit")
    table = backbone.module.embeddings.position_embeddings
    bands, columns = backbone.bands, backbone.columns
    ramp = torch.arange(columns).float()[None] + 1000 * torch.arange(bands).float()[:, None]
    table.data[0, 2:] = ramp.flatten()[:, None]
    found = backbone._positions(2 * columns)[0, 2:, 0].unflatten(0, (bands, -1))
    assert torch.equal(found[:, 1:-1].diff(dim=1), torch.full((bands, 2 * columns - 3), 0.5))
    assert torch.equal(found.diff(dim=0), torch.full((bands - 1, 2 * columns), 1000.0))
    assert torch.equal(backbone._positions(2 * columns)[:, :2], table[:, :2])


def test_longer_clips_are_heard_whole_only_when_asked():
    long = noise(2 * NATIVE)
    assert ast("fit").encode(ast("fit").prepare(*long)).states.shape[1] > ast("fit").columns
    with pytest.raises(Exception, match="at most"):
        ast("full").prepare(*long)


def test_another_context_is_refused():
    with pytest.raises(ConfigError, match=r"backbone\.context: 'some'"):
        ast("some")


def test_the_card_says_which_context_it_was_trained_for():
    assert ast("fit").card().options == {"context": "fit"}
    assert ast("full").card().options == {}


def test_whisper_stops_at_the_block_that_is_asked_for():
    whole, first = tiny("whisper", context="fit"), tiny("whisper", context="fit", layer=1)
    audio = noise(8000)
    with torch.no_grad():
        expected = whole.encode_layers(whole.prepare(*audio))[0]
        assert torch.equal(first.encode(first.prepare(*audio)).states, expected)
    assert first.card().layers == 1
    assert not [s for s in first.sites() if s.name.startswith("layers.1") or s.name == "norm"]
