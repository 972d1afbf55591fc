"""Facts of ResAdapter: where it sits, what it counts, that it merges into convolutions, and beyond 30 s."""

import pytest
import torch
from transformers.models.whisper.modeling_whisper import sinusoids as stock_sinusoids

from speech_peft.backbones.families import tiny
from speech_peft.backbones.positions import positions, sinusoids
from speech_peft.compose.merge import merge
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.res_adapter import ResAdapter
from tests.contract.laws import fill


@pytest.mark.parametrize(
    ("name", "options", "norm", "sites"),
    [
        ("whisper", {}, None, ["front.conv1", "front.conv2"]),
        ("whisper", {}, "conv_adjacent", ["front.conv1", "front.conv2"]),
        ("ast", {}, None, ["front.patches"]),
        ("conformer", {"family": "parakeet"}, "conv_adjacent", ["layers.0.norm_conv", "layers.1.norm_conv"]),
    ],
)
def test_it_sits_at_the_front_and_at_the_norms_that_are_named(name, options, norm, sites):
    backbone = tiny(name, **options)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": ResAdapter(norm=norm)})
    assert [site.name for site in model.sites["a"]] == sites


def test_all_norms_are_those_of_the_encoder():
    backbone = tiny("whisper")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": ResAdapter(rank=2, norm="all")})
    names = [site.name for site in model.sites["a"]]
    assert names[:2] == ["front.conv1", "front.conv2"]
    norms = [f"layers.{i}.norm_{n}" for i in range(2) for n in ("attn", "ffn")]
    assert names[2:] == [*norms, "norm"]
    factors = 2 * (80 * 3 + 32) + 2 * (32 * 3 + 32)
    assert count(model.parameters_of("a")) == factors + 5 * 2 * 32


def test_where_there_is_neither_convolution_nor_norm_it_says_what_there_is():
    backbone = tiny("conformer", family="parakeet")
    with pytest.raises(ConfigError, match=r"no norm is None\. Give norm=all"):
        AdaptedModel(backbone.module, backbone.sites(), {"a": ResAdapter(norm=None)})


@torch.no_grad()
def test_beside_a_domain_adapter_it_merges_and_both_stay():
    backbone = tiny("whisper", context="fit")
    methods = {"lengths": ResAdapter(rank=2), "domain": Bottleneck(width=4, sites=("layers.*.ffn",))}
    model = AdaptedModel(backbone.module, backbone.sites(), methods).eval()
    for name in methods:
        fill(model, name, 0)
    features = backbone.prepare(0.1 * torch.randn(1, 8000), torch.tensor([8000]))
    with model.using("lengths"):
        adapted = backbone.encode(features).states
    merged = merge(model, "lengths")
    backbone.module = merged
    torch.testing.assert_close(backbone.encode(features).states, adapted, atol=1e-5, rtol=1e-4)


def test_a_prefix_cache_is_refused_since_the_front_is_below_every_block():
    backbone = tiny("whisper")
    site = next(site for site in backbone.sites() if site.name == "front.conv1")
    assert backbone.block_of(site) == 0


def test_positions_go_on_as_whisper_computed_them_and_are_squeezed_from_end_to_end():
    torch.testing.assert_close(sinusoids(70, 32), stock_sinusoids(70, 32), atol=1e-5, rtol=1e-5)
    table = stock_sinusoids(50, 32)
    assert torch.equal(positions(table, 20, "cut"), table[:20])
    longer = positions(table, 70, "extended")
    assert torch.equal(longer[:50], table)
    torch.testing.assert_close(longer, stock_sinusoids(70, 32), atol=1e-5, rtol=1e-5)
    assert torch.equal(positions(table, 50, "interpolated"), table)
    half = positions(table, 25, "interpolated")
    torch.testing.assert_close(half, (table[::2] + table[1::2]) / 2, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_whisper_that_hears_longer_audio_says_so_in_its_card_and_hears_the_rest_as_before():
    short = tiny("whisper", context="fit", seconds=2)
    long = tiny("whisper", context="fit", seconds=2, positions="extended", longest=5)
    assert long.card().options == {"context": "fit", "positions": "extended", "longest": 5}
    assert (long.native_seconds, long.max_seconds) == (2, 5)
    audio = 0.1 * torch.randn(1, 3 * 16000)
    assert long.encode(long.prepare(audio, torch.tensor([48000]))).states.shape[1] == 150
    one, other = (b.encode(b.prepare(audio[:, :16000], torch.tensor([16000]))).states for b in (short, long))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"positions": "learned"}, "none of cut"),
        ({"positions": "extended", "context": "full"}, "give context=fit"),
        ({"longest": 60.0}, "give positions=extended"),
    ],
)
def test_lengths_that_no_table_of_positions_has_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        tiny("whisper", **{"context": "fit", **options})
