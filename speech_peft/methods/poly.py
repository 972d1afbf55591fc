"""Poly and multi-head routing (MHR): a bank of LoRA, and each task's choice among them.

Poly (Ponti et al. 2023, arXiv:2202.13914), MHR (Page-Caccia et al. 2023, arXiv:2211.03831).

    y' = y + (alpha / r) B(w) A(w) x,      w = sigmoid(Z_task) / sum_s sigmoid(Z_task)

    A(w) = sum_s w_s A_s,    B(w) = sum_s w_s B_s            for each of the heads by itself

A bank holds `skills` LoRA; a task is a choice among them, one for each head: a head has its slice of what A
reads and of what B writes. `heads: 1` is Poly, more is MHR. A and B are mixed first and multiplied then, so a
routed change is no mixture of the changes of the bank. With `granularity: linear`, as published, each layer
has a choice of its own; others share one: those of a block, of a stack, or all.

The manifest names the task in its column `task` (`key: language` reads `lang`), and so do the commands. A
clip whose task nobody names gets the same of every skill.

For one task it is an ordinary LoRA, which merges and exports: `speech-peft adapter materialise FOLDER --name
TASK` writes it. Without a task that is MHR-mu, the LoRA of the mean matrices, and a good start for a new
task. MHR-z learns a new task by its choice alone, L Q S numbers: `speech-peft adapter extend FOLDER --name
NEW`, then a recipe that trains what was written. B starts at zero, so a choice gets no gradient in the first
step; it then learns `router_pace` times as fast as the bank, 0.1 beside 1e-3 in the paper.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter, NotMergeable
from ..core.context import Context
from ..core.keyed.keyed import Keyed, KeyedAdapter
from ..core.keyed.named import Named, rows_of
from ..core.low_rank import LowRank
from ..core.method import Method
from ..core.site import Kind, Site, place_of
from ..errors import ConfigError
from ..registry import METHODS
from .lora import Lora


@METHODS.register("poly")
class Poly(Keyed):
    """A bank of LoRA that tasks choose from, head by head; for one task an ordinary LoRA."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})

    sites: tuple[str, ...] = ("*.attn.[qv]",)
    skills: PositiveInt = 8
    """S, how many LoRA a bank holds."""
    heads: PositiveInt = 1
    """Q; the widths of a layer are divided by it."""
    rank: PositiveInt = 4
    alpha: PositiveFloat = 1.0
    granularity: Literal["linear", "block", "stack", "model"] = "linear"
    """Which layers share a choice."""
    router_pace: PositiveFloat = 100.0
    """How many times the recipe's rate Z learns at."""

    def pace(self, parameter: str) -> float:
        return super().pace(parameter) * (self.router_pace if "router" in parameter else 1.0)

    def shared(self, sites: Sequence[Site]) -> nn.Module | None:
        if self.granularity == "linear":
            return None
        groups = dict.fromkeys(self._group(site) for site in sites)
        return nn.ModuleDict({group: _Router(self) for group in groups})

    def _group(self, site: Site) -> str:
        stack, block = place_of(site) or ("", -1)
        key = {"model": (), "stack": (stack,), "block": (stack, str(block))}[self.granularity]
        return "router_" + "_".join(part.strip(".") for part in key)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        for what, width in (("reads", site.dim_in), ("writes", site.dim_out)):
            if width % self.heads:
                raise ConfigError(
                    f"{site.name}: poly with heads: {self.heads}, and the layer {what} {width}, which they "
                    "do not divide. Give a number of heads that does"
                )
        lent = shared.get_submodule(self._group(site)) if shared is not None else None
        return _Poly(site.dim_in, site.dim_out, self, lent)

    def ordinary(self) -> Method:
        return Lora(rank=self.rank, alpha=self.alpha, sites=self.sites, top=self.top)

    @classmethod
    def examples(cls) -> list[Method]:
        two = ("telephone", "rooms")
        return [
            cls(names=two, skills=3, rank=2),
            cls(names=two, skills=2, heads=4, rank=3, granularity="block", sites=("*.attn.[kv]", "*.ffn.up")),
            cls(names=two, skills=2, heads=2, granularity="model", key="language", router_pace=1.0),
        ]


class _Router(nn.Module):
    """Z: for each task and head a choice among the skills."""

    def __init__(self, settings: Poly):
        super().__init__()
        start = torch.empty(len(settings.names), settings.heads, settings.skills).uniform_(-1e-3, 1e-3)
        self.router = Named(start, settings.fresh)

    def forward(self, ids: Tensor | None) -> Float[Tensor, "b q s"]:
        """Of each clip, in float32; without ids of one, whose task nobody names."""
        z = self.router.every()
        even = torch.full_like(z[0], 1.0 / z.shape[-1], dtype=torch.float32)
        if ids is None:
            return even[None]
        share = z.float().sigmoid()
        return rows_of(share / (share.sum(-1, keepdim=True) + 1e-12), ids, even)


class _Poly(KeyedAdapter):
    def __init__(self, dim_in: int, dim_out: int, settings: Poly, lent: nn.Module | None):
        super().__init__()
        q, s, r = settings.heads, settings.skills, settings.rank
        within = (3 * dim_in) ** -0.5  # 0.577 / sqrt(dim_in), as published
        self.a = nn.Parameter(torch.empty(q, s, dim_in // q, r).uniform_(-within, within))
        self.b = nn.Parameter(torch.zeros(q, s, r, dim_out // q))
        self.own = _Router(settings) if lent is None else None
        self.lent = (lent,)  # in a tuple, since it belongs to the model and not to this site
        self.settings, self.scale = settings, settings.alpha / settings.rank

    @property
    def router(self) -> nn.Module:
        router = self.lent[0] if self.own is None else self.own
        assert router is not None
        return router

    def matrices(self, ids: Tensor | None) -> tuple[Float[Tensor, "b i r"], Float[Tensor, "b r o"]]:
        """A and B of each clip; of one where nobody names a task."""
        w = self.router(ids).to(self.a.dtype)
        a = torch.einsum("bqs,qsir->bqir", w, self.a).flatten(1, 2)
        b = torch.einsum("bqs,qsro->brqo", w, self.b).flatten(2)
        return a, b

    def forward(
        self, x: Float[Tensor, "b ... i"], y: Float[Tensor, "b ... o"], ctx: Context
    ) -> Float[Tensor, "b ... o"]:
        a, b = self.matrices(self.settings.told(ctx))
        if len(a) == 1:
            return y + self.scale * (x @ a[0] @ b[0])
        return y + self.scale * (x.flatten(1, -2) @ a @ b).view_as(y)

    def ordinary(self, id: int) -> dict[str, Tensor]:
        a, b = self.matrices(torch.tensor([id], device=self.a.device))
        return {"a": a[0].mT, "b": b[0].mT}

    def to_lora(self, weight: Tensor, bias: Tensor | None) -> LowRank:
        names = ", ".join(self.settings.names)
        raise NotMergeable(
            f"a LoRA for each {self.settings.key} ({names}) is no change of one weight. Take that of one: "
            "speech-peft adapter materialise"
        )
