"""What kind of sound a recording is, as a frozen encoder hears it: one vector a clip."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..backbones import families


class Listener:
    """The mean of a frozen encoder's states over the frames that hold sound.

    `given` are the keys of a recipe's `task.listener`: name, weights and what they are opened with.
    """

    def __init__(self, given: Mapping[str, Any]):
        fields = {key: value for key, value in given.items() if value is not None and key != "train"}
        self.backbone = families.open_backbone(fields.pop("name"), fields.pop("weights"), **fields)

    @property
    def dim(self) -> int:
        return self.backbone.dim

    @torch.no_grad()
    def __call__(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b 1 d"]:
        """The summary of each clip, as a condition to attend to."""
        self.backbone.module.to(audio.device)
        with torch.autocast(audio.device.type, enabled=False):
            encoded = self.backbone.encode(self.backbone.prepare(audio, lengths))
        heard = encoded.mask[..., None].to(encoded.states.dtype)
        return (encoded.states * heard).sum(1, keepdim=True) / heard.sum(1, keepdim=True).clamp(min=1)
