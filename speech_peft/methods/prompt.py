"""Prompt tuning: trained frames before the real ones, for the blocks to attend to.

    y' = f([P; x]) without its first p frames

Presets say where, after visual prompt tuning (Jia et al. 2022, arXiv:2203.12119) and PETL-AST (Cappellazzo et
al. 2023, arXiv:2312.03694):

    shallow     one prompt before the first block, which passes through all of them: p d parameters
    deep        each block gets its own, and what it makes of it is dropped: p d parameters a block

A prompt has no position. Where positions are relative, or a mask counts frames, it is refused. Outside its
site the length is what it was. A fresh prompt is no identity: frames attend to it.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..registry import METHODS

PRESETS: dict[str, dict[str, Any]] = {
    "shallow": {"sites": ("stack",), "frames": 300},
    "deep": {"sites": ("layers.*.block",), "frames": 25},
}


@METHODS.register("prompt")
class Prompt(Method):
    """Trained frames in front: once before the stack, or in every block."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"stack", "block"})

    preset: Literal["shallow", "deep"] = "deep"
    sites: tuple[str, ...] = ("layers.*.block",)
    frames: PositiveInt = 25
    """Length of each prompt, p."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {**PRESETS.get(given.get("preset", "deep"), {}), **given}

    @property
    def identity_at_init(self) -> bool:
        return False

    @property
    def keeps_length(self) -> bool:
        return False

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Prompt(self.frames, site.dim_in)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(preset="shallow", frames=4), cls(preset="deep", frames=3)]


class _Prompt(Adapter):
    def __init__(self, frames: int, dim: int):
        super().__init__()
        # Uniform as in visual prompt tuning, whose bound is this one where a patch holds d numbers.
        bound = (3 / dim) ** 0.5
        self.prompt = nn.Parameter(torch.empty(frames, dim).uniform_(-bound, bound))

    def before(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t+p d"]:
        return torch.cat((self.prompt.expand(x.shape[0], -1, -1), x), 1)

    def forward(
        self, x: Float[Tensor, "b t+p d"], y: Float[Tensor, "b t+p d"], ctx: Context
    ) -> Float[Tensor, "b t d"]:
        return y[:, self.prompt.shape[0] :]
