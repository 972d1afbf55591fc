"""The blocks that the convolutional decoders are made of (ConvNeXt, arXiv:2201.03545).

In one dimension frequency is folded into the channels of a frame; in two it is an axis, cut into bands.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.site import Kind, Site


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
        return x + self.scale * self.down(F.gelu(self.up(self.norm(self.nearby(x)))))

    def nearby(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        """Each channel of each frame with those around it."""
        return self.along(x.transpose(1, 2)).transpose(1, 2)


class MapConvNeXt(ConvNeXt):
    """The same on a map: all frames of one band before those of the next, as AST's patches lie."""

    def __init__(self, channels: int, hidden: int, bands: int, *, kernel: int = 5, scale: float = 1.0):
        super().__init__(channels, hidden, scale=scale)
        self.bands = bands
        self.along = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def nearby(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        rows = x.contiguous().transpose(1, 2).unflatten(2, (self.bands, -1))
        return self.along(rows).flatten(2).transpose(1, 2).contiguous()


def sites_of(blocks: nn.ModuleList, bands: int | None = None) -> list[Site]:
    """Where adapters may sit in a decoder whose `blocks` are these."""
    found = []
    for i, block in enumerate(blocks):
        assert isinstance(block, ConvNeXt)
        name, path = f"layers.{i}", f"blocks.{i}"
        width, inner = block.up.in_features, block.up.out_features
        rows: list[tuple[str, Kind, str, str, int, int]] = [
            ("block", "block", path, path, width, width),
            ("ffn", "ffn", f"{path}.up", f"{path}.down", width, width),
            ("ffn.up", "linear", f"{path}.up", f"{path}.up", width, inner),
            ("ffn.down", "linear", f"{path}.down", f"{path}.down", inner, width),
        ]
        found += [
            Site(f"{name}.{part}", kind, entry, exit_, dim_in, dim_out, fixed_length=True, bands=bands)
            for part, kind, entry, exit_, dim_in, dim_out in rows
        ]
    return found
