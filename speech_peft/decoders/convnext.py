"""The block that the convolutional decoders are made of (ConvNeXt, arXiv:2201.03545, in one dimension)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNeXt(nn.Module):
    """Along time for each channel alone, then across channels for each frame alone, added to its input."""

    def __init__(self, channels: int, hidden: int, *, kernel: int = 7, dilation: int = 1, scale: float = 1.0):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.along = nn.Conv1d(
            channels, channels, kernel, padding=padding, dilation=dilation, groups=channels
        )
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        y = self.norm(self.along(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * self.down(F.gelu(self.up(y)))
