"""Convpass: the Conformer's convolution module as an adapter (Cappellazzo et al. 2023, arXiv:2312.03694).

    A(h) = U silu(BN(dw(glu(W LN(h)))))     W: d -> 2r, glu: 2r -> r, dw: k frames of one channel, U: r -> d

    parallel    y' = y + A(x)       beside the sublayer
    series      y' = y + A(y)       behind it; "y +" is what the paper calls the internal residual

This follows the paper's figure. The authors' code throws the LayerNorm's output away.

Presets say where: `pfeiffer` has one adapter a block, at the feed-forward sublayer, `houlsby` another at
attention. The paper trains the norm before each adapted sublayer too. What it counts (no head, no final norm)
is therefore this method, its LayerNorm and biases included, and an `affine` at ["layers.*.norm_ffn"] for
pfeiffer or at ["layers.*.norm_*"] for houlsby. On AST-base, with d = 768 and 12 blocks:

    reduction (r)                   64 (12)     96 (8)      128 (6)
    convpass, pfeiffer, k = 31      383,040     270,720     214,560
    convpass, houlsby, k = 31       766,080     541,440     429,120
    bottleneck at ffn               248,976     175,200     138,312     with biases, without a norm of its own
    bottleneck at attn and ffn      497,952     350,400     276,624

Frames are filtered in the order in which the encoder holds them. Where it holds several bands one after
another, a filter reaches from the end of one into the start of the next, as published.

Padding: where the context has a mask, what is no signal is zero when it enters the filter and has no part in
BatchNorm's statistics, so a clip's states do not depend on what it was padded with.
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..errors import SpeechPeftError
from ..registry import METHODS

PRESETS: dict[str, dict[str, Any]] = {
    "pfeiffer": {"sites": ("layers.*.ffn",)},
    "houlsby": {"sites": ("layers.*.attn", "layers.*.ffn")},
}


@METHODS.register("convpass")
class Convpass(Method):
    """A Conformer's convolution module, parallel to a sublayer or behind it."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"stack", "block", "tail", "attn", "ffn", "conv"})

    preset: Literal["pfeiffer", "houlsby"] = "pfeiffer"
    sites: tuple[str, ...] = ("layers.*.ffn",)
    form: Literal["parallel", "series"] = "parallel"
    width: PositiveInt | None = None
    """Channels of the convolution, r; give this or `reduction`."""
    reduction: PositiveFloat | None = None
    """Channels as dim_in / reduction, at least 1; 96 when neither is given."""
    kernel: PositiveInt = 31
    """Frames that the filter sees; 8 is said to be best on environmental sounds."""
    momentum: float = Field(default=0.1, gt=0, le=1)
    """Share of a batch in BatchNorm's running statistics."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        defaults = dict(PRESETS.get(given.get("preset", "pfeiffer"), {}))
        if given.get("width") is None and given.get("reduction") is None:
            defaults["reduction"] = 96
        return {**defaults, **{key: value for key, value in given.items() if value is not None}}

    @model_validator(mode="after")
    def _one_width(self) -> "Convpass":
        if self.width is not None and self.reduction is not None:
            raise ValueError(f"convpass: give width or reduction, not both ({self.width}, {self.reduction})")
        return self

    @property
    def sees_neighbours(self) -> bool:
        return True

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return (_Parallel if self.form == "parallel" else _Series)(site, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(width=4), cls(preset="houlsby", reduction=8, kernel=8, form="series")]


class _Convpass(Adapter):
    """A(h), and BatchNorm's statistics as buffers of its own."""

    def __init__(self, site: Site, settings: Convpass):
        super().__init__()
        dim = site.dim_in if settings.form == "parallel" else site.dim_out
        width = settings.width or max(1, int(dim // (settings.reduction or 1)))
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * width)
        self.depthwise = nn.Conv1d(width, width, settings.kernel, groups=width)
        self.batch_norm = _MaskedBatchNorm(width, settings.momentum)
        self.project = nn.Linear(width, site.dim_out)
        nn.init.zeros_(self.project.weight)  # zero: a fresh adapter changes nothing
        nn.init.zeros_(self.project.bias)
        self.around = ((settings.kernel - 1) // 2, settings.kernel // 2)
        self.site = site.name

    def change(self, h: Float[Tensor, "b t i"], ctx: Context) -> Float[Tensor, "b t o"]:
        sound = self._sound(h, ctx)
        g = F.glu(self.expand(self.norm(h)), dim=-1)
        g = g if sound is None else g.masked_fill(~sound[..., None], 0.0)
        g = self.depthwise(F.pad(g.transpose(1, 2), self.around)).transpose(1, 2)
        return self.project(F.silu(self.batch_norm(g, sound, count=not ctx.again)))

    def _sound(self, h: Float[Tensor, "b t i"], ctx: Context) -> Bool[Tensor, "b t"] | None:
        if ctx.mask is not None and ctx.mask.shape != h.shape[:2]:
            raise SpeechPeftError(
                f"{self.site}: the context's mask is {tuple(ctx.mask.shape)} and the frames here are "
                f"{tuple(h.shape[:2])}. Give one entry for each frame that passes, or no mask."
            )
        return ctx.mask


class _Parallel(_Convpass):
    def forward(
        self, x: Float[Tensor, "b t i"], y: Float[Tensor, "b t o"], ctx: Context
    ) -> Float[Tensor, "b t o"]:
        return y + self.change(x, ctx)


class _Series(_Convpass):
    def forward(
        self, x: Float[Tensor, "b t i"], y: Float[Tensor, "b t o"], ctx: Context
    ) -> Float[Tensor, "b t o"]:
        return y + self.change(y, ctx)


class _MaskedBatchNorm(nn.Module):
    """BatchNorm over the frames that hold signal: PyTorch's own where all do."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, momentum: float, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.momentum, self.eps = momentum, eps

    def forward(
        self, h: Float[Tensor, "b t r"], sound: Bool[Tensor, "b t"] | None, count: bool
    ) -> Float[Tensor, "b t r"]:
        """`count`: let a training batch move the running statistics."""
        mean, var = self.running_mean, self.running_var
        if self.training:
            heard = h.float().flatten(0, 1)
            weight = torch.ones_like(heard[:, :1]) if sound is None else sound.flatten()[:, None].float()
            frames = weight.sum().clamp(min=1)
            mean = (heard * weight).sum(0) / frames
            var = ((heard - mean).square() * weight).sum(0) / frames
            if count:
                self._count(mean.detach(), var.detach() * frames / (frames - 1).clamp(min=1))
        gain = self.weight * (var + self.eps).rsqrt()
        return (h - mean) * gain + self.bias

    @torch.no_grad()
    def _count(self, mean: Float[Tensor, " r"], var: Float[Tensor, " r"]) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var, self.momentum)
