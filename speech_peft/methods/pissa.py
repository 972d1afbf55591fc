"""PiSSA: LoRA that starts from a weight's principal part (Meng et al. 2024, arXiv:2404.02948).

    y' = y + s (B A - B0 A0) x,      y = W x + b,      s = alpha / r

    W = U S V^T,      A0 = sqrt(S_r / s) V_r^T,      B0 = U_r sqrt(S_r / s);      A and B start as A0 and B0

The paper moves the principal part out of the frozen weight, W_res = W - s B0 A0, and computes W_res x + s B
A x. That is the same function with the same gradients. Here the first factors are kept in buffers instead
and the frozen weight stays as it is, so a fresh adapter is the identity to the last bit, several may share
one base, and a base in bf16 is not rounded a second time.

The difference is computed as B A - B0 A0 = (B - B0) A + B0 (A - A0): both terms are small where little has
been learned, so no two large numbers cancel. It is a LoRA of rank 2 r, with A' = [A; A0] and B' = [B, -B0]
as PEFT converts one, and merges and exports as such.

A layer trains r (d_in + d_out) numbers; its file holds twice as many, and it computes like a LoRA of rank 2
r until it is merged. There is no dropout: it would drop part of the base. Site for site it is compared with
a LoRA of the same rank; the paper puts it on every linear layer, which is the default here.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.low_rank import LowRank
from ..core.method import Method
from ..core.site import Kind, Site
from ..errors import ConfigError
from ..registry import METHODS


@METHODS.register("pissa")
class Pissa(Method):
    """LoRA from a weight's principal components; merges exactly, and the base is not touched."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})

    sites: tuple[str, ...] = ("*.attn.[qkvo]", "*.ffn*.up", "*.ffn*.down")
    rank: PositiveInt = 8
    alpha: PositiveFloat | None = None
    """By default the rank, as published, so that s = 1."""
    niter: PositiveInt | None = None
    """Subspace iterations of a fast, approximate SVD (PEFT's pissa_niter_N); by default the SVD is exact."""

    @property
    def zero_at_init(self) -> bool:
        return False

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        if self.rank > min(site.dim_in, site.dim_out):
            raise ConfigError(
                f"{site.name}: pissa cannot take rank {self.rank} from a weight of "
                f"{site.dim_out} x {site.dim_in}, which has {min(site.dim_in, site.dim_out)} components"
            )
        weight = target.weight
        assert isinstance(weight, Tensor)
        return _Pissa(weight.detach(), self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(rank=4), cls(rank=3, alpha=6, niter=4, sites=("*.attn.[qv]",))]


class _Pissa(Adapter):
    a0: Tensor
    b0: Tensor

    def __init__(self, weight: Float[Tensor, "o i"], settings: Pissa):
        super().__init__()
        self.alpha = float(settings.rank) if settings.alpha is None else settings.alpha
        self.scale = self.alpha / settings.rank
        u, s, v = principal(weight, settings.rank, settings.niter)
        root = (s / self.scale).sqrt()
        # Saved with the adapter: another machine's SVD may turn signs or round otherwise.
        self.register_buffer("a0", root[:, None] * v.T)
        self.register_buffer("b0", u * root)
        self.a = nn.Parameter(self.a0.clone())
        self.b = nn.Parameter(self.b0.clone())

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        down = torch.cat([self.a, self.a - self.a0])
        up = torch.cat([self.b - self.b0, self.b0], 1)
        h = F.linear(x, down)
        return torch.addmm(y.flatten(0, -2), h.flatten(0, -2), up.t(), alpha=self.scale).view_as(y)

    def to_lora(self, weight: Tensor, bias: Tensor | None) -> LowRank:
        return LowRank(torch.cat([self.a, self.a0]), torch.cat([self.b, -self.b0], 1), 2 * self.alpha)


@torch.no_grad()
def principal(
    weight: Float[Tensor, "o i"], rank: int, niter: int | None
) -> tuple[Float[Tensor, "o r"], Float[Tensor, " r"], Float[Tensor, "i r"]]:
    """The first `rank` singular triplets U, S, V of a weight, in float32 on the CPU; the same at every call.

    With `niter`, of a random projection refined so often (Halko et al. 2009), under a seed of its own.
    """
    # A weight without numbers gives an adapter without numbers.
    matrix = weight.float() if weight.is_meta else weight.to("cpu", torch.float32)
    if niter is None:
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank].contiguous(), s[:rank], vt[:rank].T
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.svd_lowrank(matrix, q=rank, niter=niter)
