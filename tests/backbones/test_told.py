"""What the blocks are told about their frames is known inside them on every way into the model."""

import pytest
import torch
from torch import Tensor

from speech_peft.backbones.base import Backbone, Features
from speech_peft.backbones.families import tiny
from speech_peft.backbones.told import open_frames
from speech_peft.core.context import Context
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.methods.coda import Coda
from speech_peft.methods.convpass import Convpass

AUDIO = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
MASKING = {
    "wav2vec2-bert": ("conformer", {"family": "wav2vec2-bert"}),
    "wav2vec2-conformer": ("conformer", {"family": "wav2vec2-conformer"}),
    "parakeet": ("conformer", {"family": "parakeet"}),
    "usm": ("usm", {}),
}
READING: dict[str, Method] = {
    "filter": Convpass(width=4, sites=("layers.*.ffn",)),
    "filter behind all blocks": Convpass(width=4, sites=("stack",)),
    "choice": Coda(width=4, preset="ffn"),
}


def adapted(name: str, method: Method, **options: str) -> tuple[Backbone, AdaptedModel, Features]:
    torch.manual_seed(0)
    backbone = tiny(name, **options)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": method})
    with torch.no_grad():
        for p in model.parameters_of("a"):
            p.add_(0.3 * torch.randn_like(p))
    return backbone, model, backbone.prepare(AUDIO, torch.tensor([16000, 9600]))


def stock(backbone: Backbone, features: Features) -> Tensor:
    if backbone.name == "usm":
        assert features.mask is not None
        return backbone.module(features.values, ~features.mask).last_hidden_state
    return backbone.module(features.values, attention_mask=features.mask).last_hidden_state


@torch.no_grad()
@pytest.mark.parametrize("method", READING)
@pytest.mark.parametrize("family", MASKING)
def test_the_stock_forward_gives_a_clip_what_encode_gives(family, method):
    name, options = MASKING[family]
    backbone, model, features = adapted(name, READING[method], **options)
    encoded = backbone.encode(features)
    with model.using():
        bare = backbone.encode(features).states
    found = stock(backbone, features)
    assert not torch.allclose(encoded.states[1], bare[1], atol=1e-3)
    for clip, mask in enumerate(encoded.mask):
        torch.testing.assert_close(found[clip][mask], encoded.states[clip][mask], atol=1e-5, rtol=1e-4)
    assert model.current.told == []
    assert model.current.passages == []


@torch.no_grad()
@pytest.mark.parametrize("method", ["filter", "choice"])
@pytest.mark.parametrize("family", MASKING)
def test_one_block_that_somebody_runs_gives_what_it_gives_inside(family, method):
    name, options = MASKING[family]
    backbone, model, features = adapted(name, READING[method], **options)
    states = backbone.prefix(features, 0)
    expected = backbone.layer_from(0, states, features, 1)
    output = backbone.blocks[0](states, **backbone._side(features, states))
    found = output[0] if isinstance(output, tuple) else output
    for clip, frames in enumerate(backbone._known(features, states).mask.sum(1).tolist()):
        torch.testing.assert_close(
            backbone._in_time(found, features)[clip, :frames], expected[clip, :frames], atol=1e-5, rtol=1e-4
        )
    assert model.current.told == []


@torch.no_grad()
def test_a_part_of_the_model_is_enough():
    backbone, _, features = adapted("conformer", READING["filter"], family="wav2vec2-bert")
    states = backbone.prefix(features, 0)
    found = backbone.module.encoder(states, attention_mask=features.mask).last_hidden_state
    expected = backbone.encode(features)
    torch.testing.assert_close(found[expected.mask], expected.states[expected.mask], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tokens_that_sum_up_a_clip_are_known_to_the_stock_forward():
    backbone, model, _ = adapted("ast", Coda(width=4, ratio=8))
    features = backbone.prepare(0.1 * torch.randn(1, 40960), torch.tensor([40960]))
    states = backbone.prefix(features, 0)
    with model.context(Context(sound=torch.ones(states.shape[:2], dtype=torch.bool))):
        expected = backbone.encode(features).pooled
    found = backbone.module(features.values).pooler_output  # which knows no padding
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_error_in_a_block_leaves_nothing_that_was_told():
    backbone, model, features = adapted("usm", READING["filter"])
    handle = backbone.blocks[1].norm.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stock(backbone, features)
    assert model.current.told == []
    handle.remove()
    model.detach()
    assert not backbone.blocks[0]._forward_pre_hooks
    assert not backbone.blocks[0]._forward_hooks


def test_every_form_of_mask_is_read_as_the_frames_that_it_opens():
    from torch.nn.attention.flex_attention import create_block_mask

    heard = torch.tensor([[True] * 4, [True, True, False, False]])
    square = (heard[:, None] & heard[:, :, None])[:, None]
    added = torch.zeros(2, 1, 4, 4).masked_fill(~square, torch.finfo(torch.float32).min)
    blocks = create_block_mask(lambda row, head, q, k: heard[row, k], 2, None, 4, 4, device="cpu")
    for mask in (heard, heard.long(), heard[:, None, None], square, added, added[:, :, :1], blocks):
        found = open_frames(mask)
        assert found is not None
        assert torch.equal(found, heard)
    assert open_frames(None) is None
