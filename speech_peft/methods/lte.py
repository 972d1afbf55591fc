"""LTE, LoRA-the-Explorer: LoRA heads that learn apart, then are merged (Huh et al. 2024, arXiv:2402.16828).

    worker n learns on its own clips:    y' = W x + b + s (B_n A_n - B'_n A'_n) x
    every T steps:                       W += (s / N) sum_n (B_n A_n - B'_n A'_n),  then A', B' = A, B
    evaluation, with W as it began:      y' = W x + b + (s / N) sum_n B_n A_n x

A', B' are the heads at the last merge and s = alpha / r. Nothing is reset, so the merges telescope: all that
ever went into W is (s / N) sum_n B'_n A'_n. It is kept in this form, W itself stays frozen, and the whole run
is one LoRA of rank N r, exactly. Evaluation hears what a merge at that moment would make, wherever in the T
steps it comes, and leaves the procedure alone. The authors' resets are left out: they make W's change dense.

Heads live in one process, which simulates N machines, or are spread over several (`core/workers.py`), which
then talk only every T steps. As in the authors' code, A_n begins with orthogonal rows of length
sqrt(d_in / r), B_n with zeros. alpha of several thousand is theirs, for training from scratch; to adapt,
begin with r to 4 r. Weight decay shrinks A and B at every step and W only at the next merge.
"""

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.lifecycle import Lifecycle
from ..core.low_rank import LowRank
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.site import Kind, Site
from ..core.workers import Workers, WorkersAdapter
from ..registry import METHODS


@METHODS.register("lte")
class Lte(Method):
    """Parallel LoRA heads on shards of the batch, merged every T steps; one LoRA in the end."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})

    sites: tuple[str, ...] = ("*.attn.?", "*.ffn*.*")
    workers: PositiveInt = 4
    """N, the heads: a multiple of the number of processes."""
    rank: PositiveInt = 8
    """r, of one head."""
    alpha: PositiveFloat = 16.0
    every: PositiveInt = 10
    """T, the steps from merge to merge."""
    init_length: PositiveFloat | None = None
    """Of A's rows; by default sqrt(d_in / r)."""

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Lte(site.dim_in, site.dim_out, self)

    def lifecycle(self, model: AdaptedModel, adapter: str) -> Lifecycle:
        return _Merging(model, adapter, self.every)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(workers=2, rank=4, every=2, sites=("*.attn.[qv]", "*.ffn*.up"))]


class _Head(nn.Module):
    """What one worker learns."""

    def __init__(self, dim_in: int, dim_out: int, rank: int, length: float):
        super().__init__()
        self.a = nn.Parameter(length * nn.init.orthogonal_(torch.empty(rank, dim_in)))
        self.b = nn.Parameter(torch.zeros(dim_out, rank))


class _Lte(WorkersAdapter):
    merged_a: Float[Tensor, "nr i"]
    merged_b: Float[Tensor, "o nr"]

    def __init__(self, dim_in: int, dim_out: int, settings: Lte):
        length = settings.init_length or (dim_in / settings.rank) ** 0.5
        super().__init__(_Head(dim_in, dim_out, settings.rank, length) for _ in range(settings.workers))
        self.alpha, self.rank = settings.alpha, settings.rank
        wide = settings.workers * settings.rank
        # A' and B' of all heads. Only training has a use for them, so no adapter's file holds them.
        self.register_buffer("merged_a", torch.zeros(wide, dim_in), persistent=False)
        self.register_buffer("merged_b", torch.zeros(dim_out, wide), persistent=False)

    def heads(self) -> tuple[Float[Tensor, "nr i"], Float[Tensor, "o nr"]]:
        """A and B of all heads, side by side."""
        own = [head for head in self.workers if isinstance(head, _Head)]
        return torch.cat([head.a for head in own]), torch.cat([head.b for head in own], 1)

    @torch.no_grad()
    def merge(self) -> None:
        """Put into W what the heads have learned since the last time."""
        for merged, head in zip((self.merged_a, self.merged_b), self.heads(), strict=True):
            merged.copy_(head)

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        scale, mean = self.alpha / self.rank, self.alpha / self.rank / len(self.workers)
        if not self.training:
            a, b = self.heads()
            return y + mean * F.linear(F.linear(x, a), b)
        h = F.linear(x, self.merged_a)
        changes = [self._since(n, own_x, own_h) for n, (own_x, own_h) in self.shares(ctx, x, h)]
        return y + mean * F.linear(h, self.merged_b) + scale * self.together(ctx, changes)

    def _since(
        self, number: int, x: Float[Tensor, "b t i"], h: Float[Tensor, "b t nr"]
    ) -> Float[Tensor, "b t o"]:
        """(B_n A_n - B'_n A'_n) x; `h` is A' x of all heads."""
        head, own = cast(_Head, self.workers[number]), slice(number * self.rank, (number + 1) * self.rank)
        return F.linear(F.linear(x, head.a), head.b) - F.linear(h[..., own], self.merged_b[:, own])

    def to_lora(self, weight: Tensor, bias: Tensor | None) -> LowRank:
        return LowRank(*self.heads(), self.alpha)  # alpha / (N r) is s / N


class _Merging(Workers):
    """Merges every T steps."""

    def __init__(self, model: AdaptedModel, adapter: str, every: int):
        super().__init__(model, adapter)
        self.every = every

    def merge(self) -> None:
        """One exchange of the heads, which are smaller than W, and the same sum everywhere."""
        self.gather()
        for part in self.lte.values():
            part.merge()

    @property
    def lte(self) -> dict[Site, _Lte]:
        return {site: part for site, part in self.parts.items() if isinstance(part, _Lte)}

    def on_fit_start(self, loss_fn: object, batches: object) -> None:
        self.merge()  # an adapter that was trained before begins as one that has just merged

    def after_step(self, step: int) -> None:
        if (step + 1) % self.every == 0:
            self.merge()

    def before_eval(self) -> None:
        self.gather()

    def state_dict(self) -> dict[str, Tensor]:
        found = {f"{site.name}.a": part.merged_a for site, part in self.lte.items()}
        return found | {f"{site.name}.b": part.merged_b for site, part in self.lte.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for key, merged in self.state_dict().items():
            merged.copy_(state[key])
