"""HD-PiSSA: each worker moves W within its own principal directions (Wang et al. 2025, arXiv:2505.18777).

    W = U S V^T once;  worker i holds the i-th r of its triplets:  A_i = sqrt(S_i) V_i^T,  B_i = U_i sqrt(S_i)
    forward      y' = (W + D) x + b                                  no B_i A_i in it, and D = 0 at the start
    gradient     g(A_i) = B_i^T G_i,  g(B_i) = G_i A_i^T             G_i = dL / d(W + D) on worker i's clips
    step         a_i, b_i = the steps that worker i's own Adam makes of them
    all          D += sum_i (B_i + b_i)(A_i + a_i) - B_i A_i         the same sum in every process

A_i and B_i never move and nothing is subtracted from W, unlike in PiSSA. The slabs are orthogonal, so a step
changes W by rank 2 K r. The gradients come from a tap of value zero, h - detach(h) with h = B_i A_i
detach(x): the published factor of 1e-16 underflows in fp16, and through x the tap would add B_i A_i to the
gradients of all layers below. D is the adapter's own, in fp32 whatever the base is in, so that steps of 1e-5
are not lost; the base stays frozen. There is no alpha, which Adam cancels, and no dropout, which would be one
of B_i A_i.

The optimiser is the recipe's, one state per worker; gradients are clipped per worker and never averaged. A
step at a learning rate of zero changes nothing but Adam's moments. W is decomposed in the first process and
sent to the others. Workers live in one process, which simulates K machines, or are spread over several
(`core/workers.py`), which exchange a_i and b_i in every step. The result is dense: it merges exactly, or is
written as the nearest LoRA of a chosen rank, with its error (`speech-peft adapter export-peft --rank`).
"""

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.lifecycle import Lifecycle
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.site import Kind, Site, resolve
from ..core.workers import Workers, WorkersAdapter, broadcast, place
from ..errors import ConfigError
from ..registry import METHODS


@METHODS.register("hd_pissa")
class HdPissa(Method):
    """Updates of rank 2 K r by K workers, each with its own slab of the weight's singular vectors."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})

    sites: tuple[str, ...] = ("*.attn.?", "*.ffn*.*")
    workers: PositiveInt = 4
    """K: a multiple of the number of processes."""
    rank: PositiveInt = 8
    """r, of one worker's slab."""

    def check(self, adapter: str, site: Site) -> None:
        super().check(adapter, site)
        if self.workers * self.rank > (most := min(site.dim_in, site.dim_out)):
            raise ConfigError(
                f"adapter {adapter!r}: {self.workers} workers of rank {self.rank} need "
                f"{self.workers * self.rank} singular vectors, and {site.name}, {site.dim_in} wide to "
                f"{site.dim_out}, has {most}. Lower rank or workers"
            )

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _HdPissa(site.dim_in, site.dim_out, self)

    def lifecycle(self, model: AdaptedModel, adapter: str) -> Lifecycle:
        return _Folding(model, adapter)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(workers=2, rank=4, sites=("*.attn.[qv]", "*.ffn*.up"))]


class _Step(nn.Module):
    """What one worker's optimiser moves: away from zero in a step, and back to it when D has taken it up."""

    def __init__(self, dim_in: int, dim_out: int, rank: int):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(rank, dim_in))
        self.b = nn.Parameter(torch.zeros(dim_out, rank))


class _HdPissa(WorkersAdapter):
    delta: Float[Tensor, "o i"]
    slab_a: Float[Tensor, "k r i"]
    slab_b: Float[Tensor, "k o r"]

    def __init__(self, dim_in: int, dim_out: int, settings: HdPissa):
        count, rank = settings.workers, settings.rank
        super().__init__(_Step(dim_in, dim_out, rank) for _ in range(count))
        self.register_buffer("delta", torch.zeros(dim_out, dim_in))
        # Known once training starts. Whoever only evaluates needs neither them nor the decomposition.
        self.register_buffer("slab_a", torch.zeros(count, rank, dim_in), persistent=False)
        self.register_buffer("slab_b", torch.zeros(count, dim_out, rank), persistent=False)

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        if not self.training:
            return y + F.linear(x, self.change())
        taps = [self._tap(number, own) for number, (own,) in self.shares(ctx, x.detach())]
        return y + F.linear(x, self.delta) + self.together(ctx, taps)

    def _tap(self, number: int, x: Float[Tensor, "b t i"]) -> Float[Tensor, "b t o"]:
        """Zero, with the gradients of B_i A_i."""
        step = cast(_Step, self.workers[number])
        h = F.linear(F.linear(x, self.slab_a[number] + step.a), self.slab_b[number] + step.b)
        return h - h.detach()

    def change(self) -> Float[Tensor, "o i"]:
        """D, with the steps that it has not taken up yet; none are left after a step's end."""
        steps = [cast(_Step, step) for step in self.workers]
        a, b = torch.stack([step.a for step in steps]), torch.stack([step.b for step in steps])
        # (B + b)(A + a) - B A without the difference of two large numbers, of all workers in one product.
        left, right = torch.cat([self.slab_b, b], 2), torch.cat([a, self.slab_a + a], 1)
        return self.delta + left.transpose(0, 1).flatten(1) @ right.flatten(0, 1)

    @torch.no_grad()
    def condensed(self) -> dict[str, Tensor]:
        """D with the steps in it: as after a training step, none is left to hold."""
        return {"delta": self.change()}

    @torch.no_grad()
    def decompose(self, weight: Float[Tensor, "o i"]) -> None:
        """The slabs of W + D as it is now."""
        count, rank = self.slab_a.shape[:2]
        u, s, v = torch.linalg.svd(weight.float() + self.delta, full_matrices=False)
        root = s[: count * rank].sqrt()
        self.slab_a.copy_((root[:, None] * v[: count * rank]).view(count, rank, -1))
        self.slab_b.copy_((u[:, : count * rank] * root).view(-1, count, rank).transpose(0, 1))

    @torch.no_grad()
    def fold(self) -> None:
        """Let D take the steps up."""
        self.delta.copy_(self.change())
        for p in self.workers.parameters():
            p.zero_()

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.change(), bias


class _Folding(Workers):
    """Decomposes the weights at the start, and folds every worker's step into D after each."""

    def __init__(self, model: AdaptedModel, adapter: str):
        super().__init__(model, adapter)
        self.model = model

    @property
    def hd_pissa(self) -> dict[Site, _HdPissa]:
        return {site: part for site, part in self.parts.items() if isinstance(part, _HdPissa)}

    def on_fit_start(self, loss_fn: object, batches: object) -> None:
        for site, part in self.hd_pissa.items():
            # Two machines need not agree on the vectors, nor on their signs.
            if place()[0] == 0:
                part.decompose(cast(Tensor, resolve(self.model.base, site.exit).weight).to(part.delta.device))
            broadcast((part.delta, part.slab_a, part.slab_b))

    def after_step(self, step: int) -> None:
        self.gather()
        for part in self.hd_pissa.values():
            part.fold()

    def state_dict(self) -> dict[str, Tensor]:
        found = {f"{site.name}.a": part.slab_a for site, part in self.hd_pissa.items()}
        return found | {f"{site.name}.b": part.slab_b for site, part in self.hd_pissa.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for key, slab in self.state_dict().items():
            slab.copy_(state[key])
