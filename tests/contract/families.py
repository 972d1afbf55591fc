"""The tiny backbones that the contract runs on, and how each is called."""

import copy
from functools import cache

import torch
from torch import Tensor, nn

from speech_peft.backbones.base import Backbone, Features
from speech_peft.backbones.families import tiny
from speech_peft.core.method import Method

from .laws import Case, Change

BATCH = 2
MORE = "w2v_bert"
"""Whose batches may be padded further than their longest clip."""


# family: the backbone's name and how its tiny instance is opened
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "whisper": ("whisper", {"context": "fit"}),
    "ast": ("ast", {}),
    "w2v_bert": ("conformer", {"family": "wav2vec2-bert"}),
    "w2v_conformer": ("conformer", {"family": "wav2vec2-conformer"}),
    "parakeet": ("conformer", {"family": "parakeet"}),
    "usm": ("usm", {}),
    "mel_diffusion": ("mel_diffusion", {}),
}
STOCK = tuple(family for family in FAMILIES if family != "mel_diffusion")
"""Models of transformers, which are found in memory by their classes; the other is of our own making."""


@cache
def opened(family: str) -> tuple[Backbone, Features]:
    """The backbone of a family and a batch of features: half a second of noise, and less of it."""
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    audio = torch.randn(BATCH, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    return backbone, backbone.prepare(audio, torch.tensor([8000, 6400]))


@cache
def changed(family: str, change: Change) -> Features:
    """The same batch with another second clip, in another order, or with other padding.

    That is more of it, where an encoder lets it be asked for, or none behind the shorter clip.
    """
    audio = torch.randn(BATCH, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    lengths, room = torch.tensor([8000, 6400]), 8000
    if change == "neighbour":
        audio[1] = audio[1].flip(0)
    elif change == "swapped":
        audio, lengths = audio.flip(0), lengths.flip(0)
    elif family == MORE:
        room = 12000
    else:
        audio, lengths, room = audio[[1, 1], :6400], lengths[[1, 1]], 0
    return opened(family)[0].prepare(audio, lengths, pad_to=room)


def case(family: str, method: Method) -> Case:
    """The method on the backbone of a family."""
    backbone, features = opened(family)

    def call(model: nn.Module, change: Change = "") -> tuple[Tensor, ...]:
        runner = copy.copy(backbone)
        runner.module = getattr(model, "base", model)
        like = next(runner.module.parameters())
        given = features if change in ("", "later") else changed(family, change)
        mask = None if given.mask is None else given.mask.to(like.device)
        values = _float_as(given.values, like.dtype).to(like.device)
        encoded = runner.encode(Features(values, mask, given.lengths.to(like.device)))
        if family != "whisper":
            return (encoded.states,)
        tokens = torch.tensor([[1, 5, 9, 2], [1, 7, 3, 4]], device=like.device)
        if change == "later":
            tokens[:, -1] += 1
        if change == "neighbour":
            tokens[1] += 1
        if change == "swapped":
            tokens = tokens.flip(0)
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
        padded={i: int(n) for i, n in enumerate(features.lengths) if family == MORE or i == 1},
        causal=1 if family == "whisper" else None,
    )


def _float_as(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype) if values.is_floating_point() else values
