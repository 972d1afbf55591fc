"""The tiny backbones that the contract runs on, and how each is called."""

import copy
from functools import cache

import torch
from torch import Tensor, nn

from speech_peft.backbones.base import Backbone, Features, tiny
from speech_peft.core.method import Method

from .laws import Case

BATCH = 2


# family: the backbone's name and how its tiny instance is opened
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "whisper": ("whisper", {"context": "fit"}),
    "ast": ("ast", {}),
    "w2v_bert": ("conformer", {"family": "wav2vec2-bert"}),
    "w2v_conformer": ("conformer", {"family": "wav2vec2-conformer"}),
    "parakeet": ("conformer", {"family": "parakeet"}),
    "usm": ("usm", {}),
}


@cache
def opened(family: str) -> tuple[Backbone, Features]:
    """The backbone of a family and a batch of features: half a second of noise, and less of it."""
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    audio = torch.randn(BATCH, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    return backbone, backbone.prepare(audio, torch.tensor([8000, 6400]))


def case(family: str, method: Method) -> Case:
    """The method on the backbone of a family."""
    backbone, features = opened(family)

    def call(model: nn.Module) -> tuple[Tensor, ...]:
        runner = copy.copy(backbone)
        runner.module = getattr(model, "base", model)
        dtype = next(runner.module.parameters()).dtype
        batch = Features(_float_as(features.values, dtype), features.mask, features.lengths)
        encoded = runner.encode(batch)
        if family != "whisper":
            return (encoded.states,)
        tokens = torch.tensor([[1, 5, 9, 2], [1, 7, 3, 4]])
        decoder = runner.module.model.decoder
        decoded = decoder(input_ids=tokens, encoder_hidden_states=encoded.states, use_cache=False)
        return encoded.states, decoded.last_hidden_state

    return Case(
        method=method,
        base=backbone.module,
        sites=backbone.sites(),
        card=backbone.card(),
        call=call,
        batch=BATCH,
        dim=backbone.dim,
    )


def _float_as(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype) if values.is_floating_point() else values
