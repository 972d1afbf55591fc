"""Bottleneck adapters: down-projection, non-linearity, up-projection, at one of three places.

    A(h) = s (U phi(D n(h) + b_D) + b_U),        n = identity or LayerNorm

    parallel       y' = y + A(x)             beside the sublayer
    series         y' = y + A(y)             behind it
    series_input   y  = f(x + A(x))          before it

Presets change only defaults. The first is this toolkit's, the others are published settings of the family:

    parallel            beside the feed-forward sublayer, a quarter as wide, s = 1
    he                  the parallel adapter of He et al. 2022 (arXiv:2110.04366): half as wide, s = 4
    houlsby             Houlsby et al. 2019 (arXiv:1902.00751), behind attention and feed-forward, before the
                        residual is added; both matrices from a normal distribution, cut off at twice its
                        deviation of 0.001; their norms train too: add an `affine` adapter
    pfeiffer            Pfeiffer et al. 2020 (arXiv:2007.07779), once per block, on the residual stream
    llm_parallel, llm_series_input, llm_series_output
                        LLM-Adapters (Hu et al. 2023, arXiv:2304.01933): one linear layer, tanh, no biases
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter, NotMergeable, Units
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..registry import METHODS

Form = Literal["parallel", "series", "series_input"]
Preset = Literal[
    "parallel", "he", "houlsby", "pfeiffer", "llm_parallel", "llm_series_input", "llm_series_output"
]

_LLM: dict[str, Any] = {"activation": "tanh", "bias": False, "width": 256, "init_std": 0.02, "zero_up": False}
PRESETS: dict[str, dict[str, Any]] = {
    "parallel": {"form": "parallel", "sites": ("*.ffn",), "reduction": 4},
    "he": {"form": "parallel", "sites": ("*.ffn",), "reduction": 2, "scale": 4.0},
    "houlsby": {
        "form": "series",
        "sites": ("*.attn", "*.ffn"),
        "activation": "gelu",
        "width": 64,
        "init_std": 1e-3,
        "init_limit": 2.0,
        "zero_up": False,
    },
    "pfeiffer": {"form": "series", "sites": ("*.block",), "reduction": 16},
    "llm_parallel": {**_LLM, "form": "parallel", "sites": ("*.ffn.up", "*.ffn.down")},
    "llm_series_input": {**_LLM, "form": "series_input", "sites": ("*.ffn.up",)},
    "llm_series_output": {**_LLM, "form": "series", "sites": ("*.ffn.down",)},
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "identity": lambda h: h,
}


@METHODS.register("bottleneck")
class Bottleneck(Method):
    """Series and parallel bottleneck adapters."""

    kinds: ClassVar[frozenset[Kind]] = frozenset(
        {"stack", "block", "tail", "attn", "cross", "ffn", "conv", "linear"}
    )

    preset: Preset = "parallel"
    sites: tuple[str, ...] = ("*.ffn",)
    form: Form = "parallel"
    width: PositiveInt | None = None
    """Inner width; give this or `reduction`."""
    reduction: PositiveFloat | None = None
    """Inner width as dim_in / reduction, at least 1."""
    activation: Literal["relu", "gelu", "silu", "tanh", "identity"] = "relu"
    bias: bool = True
    norm: bool = False
    """A trained LayerNorm in front, for sites that see the raw residual stream."""
    norm_out: bool = False
    """A trained LayerNorm behind U, as Hyperformer's adapters have it; it starts with a gain of zero."""
    scale: PositiveFloat | Literal["learned"] = 1.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    init_std: PositiveFloat | None = None
    """Of a normal distribution; None is kaiming-uniform, as in PyTorch's Linear."""
    init_limit: PositiveFloat | None = None
    """Where that distribution is cut off, in deviations; None: nowhere."""
    zero_up: bool = True
    """Start with U = 0, or a norm behind it at zero, which makes a fresh adapter the identity."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        defaults = dict(PRESETS.get(given.get("preset", "parallel"), {}))
        if given.get("width") is not None or given.get("reduction") is not None:
            defaults.pop("width", None)
            defaults.pop("reduction", None)
        return {**defaults, **given}

    @model_validator(mode="after")
    def _one_width(self) -> "Bottleneck":
        if (self.width is None) == (self.reduction is None):
            raise ValueError(f"bottleneck: give width or reduction, not {self.width} and {self.reduction}")
        return self

    @property
    def identity_at_init(self) -> bool:
        return self.zero_up

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _BUILD[self.form](site, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [
            cls(width=8),
            cls(preset="houlsby", width=8),
            cls(preset="pfeiffer", reduction=4, norm=True, scale="learned"),
            cls(preset="llm_parallel", width=8, activation="identity"),
            cls(preset="llm_series_input", width=8),
            cls(preset="llm_series_output", width=8, zero_up=True, activation="identity"),
        ]


class _Branch(nn.Module):
    """s (U phi(D n(h) + b_D) + b_U)."""

    def __init__(self, dim_in: int, dim_out: int, settings: Bottleneck):
        super().__init__()
        width = settings.width or max(1, int(dim_in // (settings.reduction or 1)))
        self.norm = nn.LayerNorm(dim_in) if settings.norm else None
        self.norm_out = nn.LayerNorm(dim_out) if settings.norm_out else None
        self.down = nn.Linear(dim_in, width, bias=settings.bias)
        self.up = nn.Linear(width, dim_out, bias=settings.bias)
        self.activation, self.dropout = settings.activation, settings.dropout
        self.scale = nn.Parameter(torch.ones(())) if settings.scale == "learned" else settings.scale
        for layer in (self.down, self.up):
            if settings.init_std is not None:
                limit = settings.init_std * (settings.init_limit or math.inf)
                nn.init.trunc_normal_(layer.weight, std=settings.init_std, a=-limit, b=limit)
            if settings.bias:
                nn.init.zeros_(layer.bias)
        if settings.zero_up and self.norm_out is None:
            nn.init.zeros_(self.up.weight)
        if settings.zero_up and self.norm_out is not None:
            nn.init.zeros_(self.norm_out.weight)

    def forward(self, h: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        made = self._branch(h)
        return made if self.norm_out is None else self.norm_out(made)

    def _branch(self, h: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        h = h if self.norm is None else self.norm(h)
        h = F.dropout(ACTIVATIONS[self.activation](self.down(h)), self.dropout, self.training)
        # The scale is applied where the tensor is narrow, not at the width of the model.
        bias: Tensor | None = self.up.bias
        if not isinstance(self.scale, Tensor) and self.scale == 1.0:
            return F.linear(h, self.up.weight, bias)
        return F.linear(h * self.scale, self.up.weight, None if bias is None else bias * self.scale)

    def linear(self) -> tuple[Tensor, Tensor | None]:
        """The matrix and bias this branch amounts to; raises NotMergeable when it is not linear."""
        normed = self.norm is not None or self.norm_out is not None
        if self.activation != "identity" or normed:
            why = "it has a norm" if normed else f"its activation is {self.activation}"
            raise NotMergeable(f"a bottleneck is not linear: {why}")
        matrix = self.scale * self.up.weight @ self.down.weight
        bias: Tensor | None = self.up.bias
        if bias is None:
            return matrix, None
        return matrix, self.scale * (self.up.weight @ self.down.bias + bias)

    @torch.no_grad()
    def fold(self) -> None:
        """Gain and shift of the norm into D and b_D, a learned s into U and b_U."""
        if self.norm is not None:
            shift = self.down.weight @ self.norm.bias
            if self.down.bias is not None:
                self.down.bias.add_(shift)
            elif shift.any():
                raise NotMergeable("its norm shifts what enters, and without a bias no matrix can hold that")
            self.down.weight *= self.norm.weight
            self.norm.weight.fill_(1.0)
            self.norm.bias.zero_()
        if isinstance(self.scale, nn.Parameter):
            for tensor in (self.up.weight, self.up.bias):
                if tensor is not None:
                    tensor *= self.scale
            self.scale.fill_(1.0)


class _Branched(Adapter):
    """What all three places have in common."""

    branch: _Branch

    def units(self) -> Units | None:
        rows = ("branch.down.weight", "branch.down.bias")
        given = rows if self.branch.down.bias is not None else rows[:1]
        activation = ACTIVATIONS[self.branch.activation]
        return Units(self.branch.down, activation, given, ("branch.up.weight",))

    def fold(self) -> None:
        self.branch.fold()


class _Parallel(_Branched):
    def __init__(self, site: Site, settings: Bottleneck):
        super().__init__()
        self.branch = _Branch(site.dim_in, site.dim_out, settings)

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        return y + self.branch(x)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        matrix, shift = self.branch.linear()
        return weight + matrix, _sum(bias, shift)


class _Series(_Branched):
    def __init__(self, site: Site, settings: Bottleneck):
        super().__init__()
        self.branch = _Branch(site.dim_out, site.dim_out, settings)

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        return y + self.branch(y)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        matrix, shift = self.branch.linear()
        # The branch sees y with its bias, so the bias passes through the branch too.
        through = None if bias is None else bias + matrix @ bias
        return weight + matrix @ weight, _sum(through, shift)


class _SeriesInput(_Branched):
    def __init__(self, site: Site, settings: Bottleneck):
        super().__init__()
        self.branch = _Branch(site.dim_in, site.dim_in, settings)

    def before(self, x: Float[Tensor, "... i"], ctx: Context) -> Float[Tensor, "... i"]:
        return x + self.branch(x)

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        return y

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        matrix, shift = self.branch.linear()
        return weight + weight @ matrix, _sum(bias, None if shift is None else weight @ shift)


_BUILD: dict[str, Callable[[Site, Bottleneck], Adapter]] = {
    "parallel": _Parallel,
    "series": _Series,
    "series_input": _SeriesInput,
}


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
