"""Facts of ParScale: what streams share, how they are joined, and that nobody outside sees them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from speech_peft.backbones.base import Backbone, Features
from speech_peft.backbones.families import tiny
from speech_peft.classify.branches import branches
from speech_peft.core.context import Context
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.decoders.classifier import ClassifierHead
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.convpass import Convpass
from speech_peft.methods.parscale import ParScale, use_streams
from speech_peft.methods.prefix import Prefix
from speech_peft.methods.prompt import Prompt
from speech_peft.train.data.prefix_cache import lowest_block
from speech_peft.train.tasks.sites import encoder_sites

AUDIO = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
METHOD = ParScale(streams=3, frames=4, hidden=5)


def adapted(name: str = "whisper", **methods: Any) -> tuple[Backbone, AdaptedModel, Features]:
    """A tiny backbone, trained-looking adapters on it, and the features of two clips."""
    backbone = tiny(name, context="fit")
    torch.manual_seed(0)
    model = AdaptedModel(backbone.module, backbone.sites(), methods or {"p": METHOD}).eval()
    with torch.no_grad():
        for name_ in model.methods:
            for parameter in model.parameters_of(name_):
                parameter.add_(0.5 * torch.randn_like(parameter))
    return backbone, model, backbone.prepare(AUDIO, torch.tensor([8000, 6400]))


def prefixes(model: AdaptedModel, name: str = "p") -> list[Any]:
    return [model.at(name, site) for site in model.sites[name] if site.kind == "attn"]


def joint(model: AdaptedModel) -> Any:
    return next(model.at("p", site) for site in model.sites["p"] if site.kind == "stack")


def as_stream(model: AdaptedModel, stream: int, name: str = "one") -> None:
    """Give a plain prefix the keys and values of one stream."""
    for plain, parts in zip(prefixes(model, name), prefixes(model), strict=True):
        plain.keys.copy_(parts.keys[stream])
        plain.values.copy_(parts.values[stream])


# --- the streams ---


@torch.no_grad()
@pytest.mark.parametrize("name", ["whisper", "ast"])
def test_equal_prefixes_are_one_stream(name):
    backbone, model, features = adapted(name, p=METHOD, one=Prefix(frames=4))
    for part in prefixes(model):
        part.keys.copy_(part.keys[:1].expand_as(part.keys))
        part.values.copy_(part.values[:1].expand_as(part.values))
    as_stream(model, 0)
    with model.using("p"):
        many = backbone.encode(features)
    with model.using("one"):
        one = backbone.encode(features)
    torch.testing.assert_close(many.states, one.states, atol=1e-5, rtol=1e-5)
    assert many.pooled is None or torch.allclose(many.pooled, one.pooled, atol=1e-5)


@torch.no_grad()
def test_each_stream_of_each_clip_is_that_prefix_on_that_clip():
    backbone, model, features = adapted("whisper", p=METHOD, one=Prefix(frames=4))
    seen: list[Tensor] = []
    backbone.blocks[-1].register_forward_hook(lambda module, args, y: seen.append(y), prepend=True)
    with model.using("p"):
        backbone.encode(features)
    for stream in range(3):
        as_stream(model, stream)
        with model.using("one"):
            backbone.encode(features)
        torch.testing.assert_close(seen[0].unflatten(0, (3, 2))[stream], seen[-1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(seen[1], seen[2], atol=1e-3)


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours():
    backbone, _, features = adapted()
    together = backbone.encode(features).states
    for clip in range(2):
        alone = Features(features.values[clip : clip + 1], None, features.lengths[clip : clip + 1])
        torch.testing.assert_close(backbone.encode(alone).states[0], together[clip], atol=1e-5, rtol=1e-5)


def test_prefixes_start_apart():
    backbone = tiny("whisper")
    model = AdaptedModel(backbone.module, backbone.sites(), {"p": METHOD})
    for part in prefixes(model):
        for kept in (part.keys, part.values):
            assert all(not torch.equal(kept[i], kept[j]) for i in range(3) for j in range(i))
            assert 0.01 < kept.std() < 0.03


# --- their weights ---


@torch.no_grad()
def test_weights_sum_to_one_and_stay_above_their_share_of_the_smoothing():
    _, model, _ = adapted()
    part = joint(model)
    part.write.mul_(100)  # as sure as it can be
    streams = torch.randn(3, 2, 7, 32)
    for cast_to in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=cast_to == torch.bfloat16):
            weights = part.weights(streams)
        assert weights.shape == (3, 2, 7)
        assert weights.dtype == torch.float32
        assert weights.min() >= 0.01 / 3 - 1e-8
        torch.testing.assert_close(weights.sum(0), torch.ones(2, 7))
    assert weights.min() < 0.004, "the smoothing is what holds them"


@torch.no_grad()
def test_the_order_of_streams_means_nothing():
    backbone, model, features = adapted()
    before = backbone.encode(features).states
    other = [2, 0, 1]
    for part in prefixes(model):
        part.keys.copy_(part.keys[other])
        part.values.copy_(part.values[other])
    assert not torch.allclose(backbone.encode(features).states, before, atol=1e-4)
    part = joint(model)
    for kept in (part.read, part.write, part.bias):
        kept.copy_(kept[other])
    torch.testing.assert_close(backbone.encode(features).states, before, atol=1e-5, rtol=1e-5)


# --- how many ---


@torch.no_grad()
def test_fewer_streams_may_run_than_were_trained():
    backbone, model, features = adapted("whisper", p=METHOD, one=Prefix(frames=4))
    as_stream(model, 0)
    with model.using("one"):
        first = backbone.encode(features).states
    with model.using("p"):
        three = backbone.encode(features).states
        use_streams(model, "p", 2)
        two = backbone.encode(features).states
        use_streams(model, "p", 1)
        assert torch.equal(backbone.encode(features).states, first)
        use_streams(model, "p", 3)
        assert torch.equal(backbone.encode(features).states, three)
    assert not torch.allclose(two, three, atol=1e-4)
    with pytest.raises(ConfigError, match="'p' has 3 streams; 4 cannot run"):
        use_streams(model, "p", 4)
    with pytest.raises(ConfigError, match="'one' has no streams: it is a prefix"):
        use_streams(model, "one", 1)


@torch.no_grad()
def test_one_stream_has_nothing_to_weigh_and_counts_are_as_said():
    for streams, joining in ((1, 0), (3, 3 * 5 * 32 + 5 + 3 * 5 + 3)):
        method = ParScale(streams=streams, frames=4, hidden=5)
        _, model, _ = adapted("whisper", p=method)
        assert count(model.parameters_of("p")) == 2 * 2 * streams * 4 * 32 + joining
    _, model, _ = adapted("whisper", p=ParScale(preset="published", streams=2))
    assert prefixes(model)[0].keys.shape == (2, 48, 32)
    assert joint(model).read.shape == (2, 32, 32)


@torch.no_grad()
def test_with_top_streams_part_at_the_lowest_prefix_and_the_cache_holds_what_is_below(tmp_path):
    method = ParScale(streams=3, frames=4, top=1)
    backbone, model, features = adapted("whisper", p=method)
    assert [site.name for site in model.sites["p"]] == ["layers.1.stack", "layers.1.attn"]
    rows: list[int] = []
    for block in backbone.blocks:
        block.fc1.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    whole = backbone.encode(features).states
    assert rows == [2, 6]
    assert lowest_block(backbone, model) == 1
    below = backbone.prefix(features, 1)
    assert len(below) == 2, "one set of states for all streams"
    assert torch.equal(backbone.encode_from(1, below, features).states, whole)
    save.write(tmp_path / "saved", model, "p", backbone.card())
    pinned = save.read(tmp_path / "saved").pinned
    assert pinned.choose(backbone.sites(), backbone.module) == model.sites["p"]


def test_a_cache_of_nothing_is_refused_with_the_reason():
    backbone, model, _ = adapted()
    with pytest.raises(ConfigError, match="lies in the first block, so nothing below it is frozen"):
        lowest_block(backbone, model)


# --- whoever reads the states ---


@torch.no_grad()
def test_heads_on_every_layer_get_one_state_a_clip():
    backbone, _, features = adapted()
    inside: list[Tensor] = []
    backbone.blocks[0].register_forward_hook(lambda module, args, y: inside.append(y))
    first, last, finished = backbone.encode_layers(features)
    torch.testing.assert_close(first, inside[0].unflatten(0, (3, 2)).mean(0))
    assert last.shape == finished.shape == first.shape
    torch.testing.assert_close(finished, backbone.encode(features).states)
    head = ClassifierHead(32, ["a", "b"], layer="mix", depth=2)
    assert head.logits(backbone, features).shape == (2, 2)


def test_a_head_that_stops_below_the_last_block_is_refused():
    backbone = tiny("whisper")
    with pytest.raises(ConfigError, match=r"no site spans the blocks .* Is the output of a lower block read"):
        AdaptedModel(backbone.module, encoder_sites(backbone, 1), {"p": METHOD})


@torch.no_grad()
def test_several_adapters_in_one_pass_give_what_each_gives_alone():
    methods = {"p": ParScale(streams=3, frames=2, top=1), "b": Bottleneck(width=4, top=1), "q": METHOD}
    backbone, model, features = adapted("whisper", **methods)
    heads = {name: ClassifierHead(32, ["a", "b"], layer="mix", depth=2) for name in methods}
    for name, logits in branches(backbone, model, heads, features):
        with model.using(name):
            torch.testing.assert_close(logits, heads[name].logits(backbone, features), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_adapters_inside_see_a_mask_for_every_stream():
    backbone, model, features = adapted("whisper", p=METHOD, c=Convpass(width=4))
    mask = torch.arange(25) < torch.tensor([[25], [20]])
    with model.context(Context(mask=mask)):
        together = backbone.encode(features).states
    for clip in range(2):
        alone = Features(features.values[clip : clip + 1], None, features.lengths[clip : clip + 1])
        with model.context(Context(mask=mask[clip : clip + 1])):
            torch.testing.assert_close(backbone.encode(alone).states[0], together[clip], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("order", [("p", "frames"), ("frames", "p")])
def test_a_prompt_before_the_same_span_is_taken_away_again(order):
    methods = {"p": METHOD, "frames": Prompt(preset="shallow", frames=3)}
    backbone, _, features = adapted("whisper", **{name: methods[name] for name in order})
    assert backbone.encode(features).states.shape == (2, 25, 32)
    assert [len(states) for states in backbone.encode_layers(features)] == [2, 2, 2]


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "options", "sites"),
    [
        ("conformer", {"family": "wav2vec2-bert"}, "layers.*.attn"),
        ("usm", {}, "layers.*.attn"),
        ("whisper", {}, "decoder.layers.*.attn"),
    ],
)
def test_relative_positions_and_counted_masks_refuse_it_with_the_reason(name, options, sites):
    backbone = tiny(name, **options)
    method = ParScale(sites=(sites,))
    with pytest.raises(ConfigError, match=r"have no position, and at .* scores depend on relative positions"):
        AdaptedModel(backbone.module, backbone.sites(), {"p": method})


def test_streams_of_two_adapters_at_once_are_refused_by_the_site():
    backbone, model, features = adapted("whisper", p=METHOD, q=ParScale(streams=2, frames=4, top=1))
    with pytest.raises(ConfigError, match=r"layers\.1\.attn: \d streams were expected here, and 6 pass"):
        backbone.encode(features)
    with model.using("q"):
        assert len(backbone.encode(features).states) == 2


def test_where_there_are_no_keys_it_says_so():
    backbone = tiny("whisper")
    with pytest.raises(ConfigError, match="stack has no keys"):
        AdaptedModel(backbone.module, backbone.sites(), {"p": ParScale(sites=("stack",))})
