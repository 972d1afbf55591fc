"""Facts of prefix tuning: the attention it amounts to, what it leaves alone, and where it must not sit."""

import pytest
import torch
from torch import Tensor, nn

from speech_peft.backbones.base import Backbone, Features
from speech_peft.backbones.families import tiny
from speech_peft.compose.merge import merge
from speech_peft.core.attention import attend
from speech_peft.core.describe import count
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import resolve
from speech_peft.errors import ConfigError
from speech_peft.methods.affine import Affine
from speech_peft.methods.prefix import Prefix
from tests import toy


def opened(name: str, **options) -> tuple[Backbone, Features]:
    backbone = tiny(name, **options)
    return backbone, backbone.prepare(0.1 * torch.randn(2, 8000), torch.tensor([8000, 6400]))


def written_out(module: nn.Module, x: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention over prefix and frames, from the module's own four projections."""
    linear = dict(module.named_children())
    out = linear.get("o_proj", linear.get("out_proj"))
    q, k, v = (linear[f"{n}_proj"](x) for n in "qkv")
    k, v = (torch.cat((p.expand(len(x), -1, -1), own), 1) for p, own in ((keys, k), (values, v)))
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    assert out is not None
    return out((weights @ v).transpose(1, 2).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), [("whisper", {"context": "fit"}), ("ast", {})])
def test_it_is_attention_over_prefix_and_frames(name, options):
    backbone, features = opened(name, **options)
    model = AdaptedModel(backbone.module, backbone.sites(), {"p": Prefix(frames=4, init_std=1)})
    site = model.sites["p"][0]
    seen: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple, kwargs: dict, output: tuple[Tensor, ...]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"], output[0]))

    attention = resolve(model.base, site.exit)
    attention.register_forward_hook(note, with_kwargs=True)
    backbone.encode(features)
    part = model.at("p", site)
    ((x, y),) = seen
    expected = written_out(attention, x, part.get_parameter("keys"), part.get_parameter("values"), heads=2)
    torch.testing.assert_close(y, expected)


@torch.no_grad()
def test_a_masked_frame_stays_masked_and_the_prefix_is_open_to_all():
    q, k, v = (torch.randn(2, 2, 5, 4) for _ in range(3))
    more = (torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[1, :, :, 3:] = False
    module = nn.Module()
    module.is_causal = False
    for given in (mask, torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)):
        found = attend("sdpa", module, q, k, v, given, added_keys_values=more)[0]
        alone = attend(
            "sdpa", module, q[1:], k[1:, :, :3], v[1:, :, :3], None,
            added_keys_values=(more[0][1:], more[1][1:]),
        )[0]  # fmt: skip
        torch.testing.assert_close(found[1:], alone)


@torch.no_grad()
def test_two_prefixes_are_one_of_both_lengths():
    backbone, features = opened("whisper", context="fit")
    parts = {"a": Prefix(frames=2, init_std=1), "b": Prefix(frames=3, init_std=1)}
    model = AdaptedModel(backbone.module, backbone.sites(), {**parts, "both": Prefix(frames=5)})
    for site in model.sites["both"]:
        for name in ("keys", "values"):
            pieces = [model.at(part, site).get_parameter(name) for part in parts]
            model.at("both", site).get_parameter(name).copy_(torch.cat(pieces))
    with model.using("a", "b"):
        apart = backbone.encode(features).states
    with model.using("both"):
        assert torch.equal(backbone.encode(features).states, apart)


@torch.no_grad()
def test_a_merged_copy_attends_as_stock_does():
    backbone, _ = opened("whisper", context="fit")
    stock = backbone.module.config._attn_implementation
    methods = {"p": Prefix(frames=4), "norms": Affine(sites=("layers.*.norm_ffn",))}
    merged = merge(AdaptedModel(backbone.module, backbone.sites(), methods), "norms")
    assert getattr(merged, "config")._attn_implementation == stock  # noqa: B009  a Module's attribute has no type
    assert backbone.module.config._attn_implementation != stock


def test_it_counts_keys_and_values():
    backbone, _ = opened("ast")
    model = AdaptedModel(backbone.module, backbone.sites(), {"p": Prefix(frames=4)})
    assert count(model.parameters_of("p")) == backbone.depth * 2 * 4 * backbone.dim


@pytest.mark.parametrize(
    ("name", "options", "sites"),
    [
        *(
            ("conformer", {"family": family}, "layers.*.attn")
            for family in ("wav2vec2-bert", "wav2vec2-conformer", "parakeet")
        ),
        ("usm", {}, "layers.*.attn"),
        ("whisper", {}, "decoder.layers.*.attn"),
    ],
)
def test_relative_positions_and_counted_masks_refuse_it_with_the_reason(name, options, sites):
    backbone = tiny(name, **options)
    with pytest.raises(
        ConfigError, match=r"have no position, and at \S*layers\.0\.attn scores depend on rel"
    ):
        AdaptedModel(backbone.module, backbone.sites(), {"p": Prefix(sites=(sites,))})


def test_an_attention_outside_the_interface_is_refused_with_the_site():
    from dataclasses import replace

    sites = [replace(site, fixed_length=False) for site in toy.sites()]
    with pytest.raises(ConfigError, match=r"layers\.0\.attn: Attention has an attention 'of no name'"):
        AdaptedModel(toy.toy(), sites, {"p": Prefix()})
