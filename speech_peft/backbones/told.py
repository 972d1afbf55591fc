"""What the blocks of an encoder are told about their frames, read from their arguments."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.context import Context

Told = Callable[[tuple[Any, ...], Mapping[str, Any]], Context]


def conformer(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Context:
    """The mask of the filters, of one entry a frame, or that of the attention."""
    mask = kwargs.get("conv_attention_mask")
    return _all_heard(open_frames(_given(args, kwargs, "attention_mask", 1) if mask is None else mask))


def usm(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Context:
    """A mask that is True where there is no sound."""
    mask = _given(args, kwargs, "audio_mel_mask", 1)
    return _all_heard(None if mask is None else ~mask)


def ast(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Context:
    """The tokens that sum up a clip come first, and nothing says what is padding."""
    return Context(summary=(0, 2))


def open_frames(mask: Any) -> Bool[Tensor, "b t"] | None:
    """True where a frame may be attended to, of an attention mask in any of the forms that there are."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):  # flex attention's: a function of the places of a query and a key
        rows, _, frames, _ = mask.shape
        device = mask.kv_num_blocks.device
        row, frame = torch.arange(rows, device=device)[:, None], torch.arange(frames, device=device)[None]
        return mask.mask_mod(row, torch.zeros_like(row), frame, frame).expand(rows, frames)
    if mask.dim() == 4:  # each frame's own key
        mask = mask[:, 0, 0] if mask.shape[2] == 1 else mask[:, 0].diagonal(dim1=1, dim2=2)
        if mask.is_floating_point():  # added to the scores
            return mask >= 0
    return mask.bool()


def _all_heard(mask: Bool[Tensor, "b t"] | None) -> Context:
    return Context(mask=mask, sound=mask)


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str, place: int) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)
