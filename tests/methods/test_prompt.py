"""Facts of prompt tuning: where frames are added, that they go again, and where they must not come."""

import pytest
import torch
from torch import Tensor, nn

from speech_peft.backbones.base import Backbone, Features
from speech_peft.backbones.families import tiny
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import resolve
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.convpass import Convpass
from speech_peft.methods.prompt import Prompt


def opened(name: str, **options) -> tuple[Backbone, Features]:
    backbone = tiny(name, **options)
    return backbone, backbone.prepare(0.1 * torch.randn(2, 8000), torch.tensor([8000, 6400]))


@torch.no_grad()
@pytest.mark.parametrize("preset", ["shallow", "deep"])
def test_blocks_see_the_prompt_and_nothing_behind_the_last_does(preset):
    backbone, features = opened("whisper", context="fit")
    AdaptedModel(backbone.module, backbone.sites(), {"p": Prompt(preset=preset, frames=4)})
    widths: list[int] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        widths.append(args[0].shape[1])

    for block in backbone.blocks:
        resolve(block, "fc1").register_forward_pre_hook(note)
    states = backbone.encode(features).states
    assert widths == [states.shape[1] + 4] * 2


@torch.no_grad()
def test_a_deep_prompt_is_new_in_every_block():
    backbone, features = opened("ast")
    model = AdaptedModel(backbone.module, backbone.sites(), {"p": Prompt(preset="deep", frames=4)})
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0][0, :4])

    for block in backbone.blocks:
        resolve(block, "layernorm_before").register_forward_pre_hook(note)
    backbone.encode(features)
    for site, given in zip(model.sites["p"], seen, strict=True):
        assert torch.equal(given, model.at("p", site).get_parameter("prompt"))


@torch.no_grad()
@pytest.mark.parametrize("preset", ["shallow", "deep"])
def test_the_states_of_each_block_are_as_many_as_without_it(preset):
    for name in ("ast", "whisper"):
        backbone, features = opened(name)
        model = AdaptedModel(backbone.module, backbone.sites(), {"p": Prompt(preset=preset, frames=4)})
        adapted = backbone.encode_layers(features)
        one = backbone.layer_from(0, backbone.prefix(features, 0), features, 1)
        with model.using():
            bare = backbone.encode_layers(features)
        assert [y.shape for y in adapted] == [y.shape for y in bare]
        assert torch.equal(one, adapted[0])


@torch.no_grad()
@pytest.mark.parametrize("order", [("p", "b"), ("b", "p")])
def test_other_adapters_of_the_block_see_the_prompt_in_either_order(order):
    backbone, features = opened("whisper", context="fit")
    methods = {"p": Prompt(frames=4), "b": Bottleneck(sites=("layers.*.block",), width=4)}
    model = AdaptedModel(backbone.module, backbone.sites(), {name: methods[name] for name in order})
    for parameter in model.parameters_of("b"):
        nn.init.normal_(parameter)
    assert backbone.encode(features).states.shape[1] == features.values.shape[-1] // 2


@torch.no_grad()
def test_two_prompts_at_one_block_are_both_taken_away():
    backbone, features = opened("whisper", context="fit")
    methods = {"deep": Prompt(frames=4), "shallow": Prompt(preset="shallow", frames=3)}
    AdaptedModel(backbone.module, backbone.sites(), {**methods, "more": Prompt(frames=2)})
    assert backbone.encode(features).states.shape[1] == features.values.shape[-1] // 2


@torch.no_grad()
def test_the_mask_that_adapters_inside_see_covers_the_prompt():
    backbone, features = opened("whisper", context="fit")
    methods = {"p": Prompt(frames=4), "c": Convpass(width=4)}
    model = AdaptedModel(backbone.module, backbone.sites(), methods).eval()
    mask = torch.ones(2, features.values.shape[-1] // 2, dtype=torch.bool)
    with model.context(Context(mask=mask)):
        states = backbone.encode(features).states
        assert model.current.ctx.mask is mask, "and outside the site it is what it was"
    assert torch.equal(states, backbone.encode(features).states), "a mask of all frames masks nothing"


@pytest.mark.parametrize(
    ("name", "options", "sites"),
    [
        *(
            ("conformer", {"family": family}, sites)
            for family in ("wav2vec2-bert", "wav2vec2-conformer", "parakeet")
            for sites in ("stack", "layers.*.block")
        ),
        ("usm", {}, "layers.*.block"),
        ("whisper", {}, "decoder.layers.*.block"),
    ],
)
def test_relative_positions_and_counted_masks_refuse_it_with_the_reason(name, options, sites):
    backbone = tiny(name, **options)
    with pytest.raises(ConfigError, match=r"and \S*(stack|block) is a site of fixed length: its positions"):
        AdaptedModel(backbone.module, backbone.sites(), {"p": Prompt(sites=(sites,))})
