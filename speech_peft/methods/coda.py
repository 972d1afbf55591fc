"""CoDA: a frozen block works on the frames that a router selects (Lei et al. 2023, arXiv:2304.04947).

    y' = x + A(x) + lambda * F(x),      A(x) = U relu(D LN(x) + b_D) + b_U
    s = w^T n(x),    lambda = softtopk(s, k) in [0, 1]^n,    sum(lambda) = k

F is what the frozen block adds to its input. It is computed for the k frames of highest s alone, the adapter
A for all n. A frame that is not selected passes by with A(x). n(x) is x normalised without gain and bias, as
the raw stream of a speech encoder is loud in a few channels. A, w and LN are trained.

    k_to_k      selected frames attend to each other
    k_to_all    they attend to all frames, whose keys and values are computed: more exact, and dearer

softtopk solves max s^T lambda + epsilon H(lambda) with 0 <= lambda <= 1 and the sum k. The published way
(CoLT5, arXiv:2303.09752) iterates 20 times, from a large epsilon to the one asked for, as a small one alone
does not converge. Its fixed point is known: lambda_i = min(1, c exp(s_i / epsilon)). Here c is found by
sorting, so the sum is k at once and gradients are those at the fixed point. Frames are selected by s, and
lambda is only a weight: where many lambdas are 1, their order says nothing.

No code of the authors was found; this follows the paper and public re-implementations of its router.

Frames: k is a clip's own frames / ratio, rounded up. What a clip is padded with is never selected nor
attended to, so with Whisper's padding to 30 s a short clip costs what its own frames cost. Tokens that sum up
a clip (AST) are always selected, with lambda 1. A decoder of every frame (CTC, restoration) gets frames that
no block has worked on: leave the last blocks out, by sites such as "layers.[0-9].block".

Presets say where:

    block       whole blocks, where positions are absolute: Whisper, AST
    ffn         the feed-forward sublayer, in any encoder. A Conformer's blocks are refused, as their filters
                need contiguous frames and their scores true distances; here both stay as they are

The paper first trains the whole model for a while with the router in place. A frozen one has no such time:
the router begins as the best linear guess of how much the block changes a frame (ridge regression on the
first batches), and k falls from n to its value in the first `ramp_steps` steps. A block of Whisper over 30 s
takes 3.8 (tiny) to 3.5 (small) times fewer operations at ratio 3 and width 64, adapter and router counted.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.lifecycle import Lifecycle
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.selection import Selection
from ..core.site import Kind, Site
from ..errors import ConfigError
from ..registry import METHODS

PRESETS: dict[str, dict[str, Any]] = {
    "block": {"sites": ("layers.*.block",)},
    "ffn": {"sites": ("layers.*.ffn",)},
}
RIDGE = 1e-2  # of the mean variance of a channel
SLACK = 1e-2  # of a frame: what is a whole number but for rounding is not rounded up


@METHODS.register("coda")
class Coda(Method):
    """Conditional adapter: the frozen block runs on the frames that a router selects."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"block", "ffn"})

    preset: Literal["block", "ffn"] = "block"
    sites: tuple[str, ...] = ("layers.*.block",)
    ratio: float = Field(default=3.0, ge=1)
    """Frames of a clip to each one that is selected, n / k. At 1 this is a parallel bottleneck."""
    attend: Literal["k_to_k", "k_to_all"] = "k_to_k"
    epsilon: PositiveFloat = 1.0
    """How soft lambda is; 1 for speech, 0.03 for text."""
    width: PositiveInt = 64
    """Inner width of the adapter."""
    ramp_steps: NonNegativeInt = 200
    """Training steps in which k falls from n to n / ratio."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {**PRESETS.get(given.get("preset", "block"), {}), **given}

    @property
    def identity_at_init(self) -> bool:
        return self.ratio == 1

    @property
    def sees_neighbours(self) -> bool:
        return True

    def check(self, adapter: str, site: Site) -> None:
        super().check(adapter, site)
        if site.kind == "block" and site.fixed_length:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} leaves frames out, and {site.name} is a site of fixed "
                "length: its positions are relative, or its filters and its mask count frames. Use preset: "
                "ffn, which leaves attention and convolution as they are."
            )
        if self.attend == "k_to_all" and not site.keys:
            raise ConfigError(
                f"adapter {adapter!r}: attend: k_to_all needs keys of frames that {site.name} does not work "
                f"on, and at a site of kind {site.kind!r} of this encoder there are none. Use attend: k_to_k"
            )

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Coda(site, self)

    def lifecycle(self, model: AdaptedModel, adapter: str) -> Lifecycle:
        return _Ramp([cast(_Coda, model.at(adapter, site)) for site in model.sites[adapter]], self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [
            cls(width=4),
            cls(width=4, ratio=2, attend="k_to_all", epsilon=0.1),
            cls(width=4, preset="ffn"),
        ]


def soft_top_k(score: Float[Tensor, "b n"], k: Int[Tensor, " b"], epsilon: float) -> Float[Tensor, "b n"]:
    """lambda of each frame: in [0, 1], with the sum k, the larger the larger the score.

    A frame of score -inf gets 0; of the others there must be at least k >= 1.
    """
    z = score / epsilon
    with torch.no_grad():  # the largest score that stays below 1, if all above it are 1
        ordered = z.sort(-1, descending=True).values
        rest = ordered.flip(-1).logcumsumexp(-1).flip(-1)
        room = k[:, None] - torch.arange(z.shape[1], device=z.device)
        fits = (room > 0) & (ordered + room.clamp(min=1).log() <= rest)
        limit = ordered.gather(1, (fits | (room == 1)).int().argmax(-1, keepdim=True))
    full = z > limit
    below = z.masked_fill(full, -torch.inf)
    share = (below - below.logsumexp(-1, keepdim=True)).exp() * (k - full.sum(-1))[:, None]
    return torch.where(full, 1.0, share.clamp(max=1.0))


class _Coda(Adapter):
    def __init__(self, site: Site, settings: Coda):
        super().__init__()
        self.norm = nn.LayerNorm(site.dim_in)
        self.down = nn.Linear(site.dim_in, settings.width)
        self.up = nn.Linear(settings.width, site.dim_out)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        # Scores of deviation 1; on_fit_start knows better.
        router = torch.randn(site.dim_in) / site.dim_in**0.5
        self.router = nn.Parameter(router) if settings.ratio > 1 else None
        self.ratio = settings.ratio
        """Of the passes to come: a ramp moves it."""
        self.epsilon, self.to_all = settings.epsilon, settings.attend == "k_to_all"
        self.residual = site.kind == "block"
        self.guess: _Guess | None = None

    def select(self, x: Float[Tensor, "b n d"], ctx: Context) -> Selection | None:
        if self.router is None or self.ratio <= 1:
            return None
        with torch.autocast(x.device.type, enabled=False):
            score = _seen(x) @ self.router.float()
            return self._selection(score, ctx.mask if ctx.sound is None else ctx.sound, ctx.summary or (0, 0))

    def _selection(
        self, score: Float[Tensor, "b n"], heard: Bool[Tensor, "b n"] | None, summary: tuple[int, int]
    ) -> Selection:
        first, always = summary
        sums_up = torch.zeros_like(score, dtype=torch.bool)
        sums_up[:, first : first + always] = True
        frames = ~sums_up if heard is None else heard & ~sums_up
        # A clip of which nothing is heard is as good as one that is heard throughout, and its states finite.
        frames = frames | (~frames.any(-1, keepdim=True) & ~sums_up)
        most = math.ceil((score.shape[1] - always) / self.ratio - SLACK)
        k = (frames.sum(-1) / self.ratio - SLACK).ceil().clamp(1, most).long()
        score = score.masked_fill(~frames, -torch.inf)
        weights = soft_top_k(score, k, self.epsilon).masked_fill(sums_up, 1.0)
        order = score.masked_fill(sums_up, torch.inf).argsort(-1, descending=True)
        # A graph has one number of places; else there are no more than the longest clip needs.
        places = always + (most if heard is None or torch.compiler.is_compiling() else int(k.max()))
        chosen, rank = order[:, :places].sort(-1)
        others = order[:, places:] if self.to_all else None
        if heard is None:
            return Selection(chosen, weights.gather(1, chosen), self.residual, others=others)
        taken = rank < (k + always)[:, None]
        kept = weights.gather(1, chosen) * taken
        attended = (
            (frames | sums_up).gather(1, torch.cat((order[:, places:], chosen), 1)) if self.to_all else taken
        )
        return Selection(chosen, kept, self.residual, taken, others, attended if self.residual else None)

    def forward(
        self, x: Float[Tensor, "b n i"], y: Float[Tensor, "b n o"], ctx: Context
    ) -> Float[Tensor, "b n o"]:
        if self.guess is not None:
            self.guess.hear(x, y - x if self.residual else y, ctx.mask if ctx.sound is None else ctx.sound)
        return y + self.up(F.relu(self.down(self.norm(x))))


def _seen(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """What the router reads of a frame."""
    return F.layer_norm(x.float(), x.shape[-1:])


class _Guess:
    """Ridge regression of how much a block changes a frame, log of the norm, on what the router reads."""

    def __init__(self, dim: int):
        self.moments = torch.zeros(dim + 2, dim + 2, dtype=torch.float64)

    def hear(
        self, x: Float[Tensor, "b n d"], update: Float[Tensor, "b n o"], heard: Bool[Tensor, "b n"] | None
    ) -> None:
        seen = _seen(x)
        size = update.float().norm(dim=-1, keepdim=True).clamp(min=1e-6).log()
        rows = torch.cat((seen, size, torch.ones_like(size)), -1)
        rows = (rows.flatten(0, 1) if heard is None else rows[heard]).double().cpu()
        self.moments += rows.T @ rows

    def router(self, device: torch.device) -> Float[Tensor, " d"] | None:
        """The weights, for scores in deviations of what is to be guessed; None where nothing was heard."""
        total = _over_processes(self.moments, device)
        frames = total[-1, -1]
        if frames < 2:
            return None
        mean = total[-1, :-1] / frames
        spread = total[:-1, :-1] / frames - mean.outer(mean)
        within, with_size, size = spread[:-1, :-1], spread[:-1, -1], spread[-1, -1]
        ridge = RIDGE * within.diagonal().mean() * torch.eye(len(within), dtype=within.dtype)
        return torch.linalg.solve(within + ridge, with_size) / size.clamp(min=1e-12).sqrt()


def _over_processes(moments: Tensor, device: torch.device) -> Tensor:
    """The sum over all processes of a run, so that each begins with the same router."""
    if not (dist.is_available() and dist.is_initialized()):
        return moments
    total = moments.to(device)  # where the processes can talk to each other
    dist.all_reduce(total)
    return total.cpu()


class _Ramp(Lifecycle):
    """The router's guess before the first step, and fewer frames with each of the steps after it."""

    def __init__(self, parts: Sequence[_Coda], settings: Coda):
        self.parts, self.settings = [part for part in parts if part.router is not None], settings

    def on_fit_start(self, loss_fn: Callable[[Any], Tensor], batches: Iterable[Any]) -> None:
        self._run_at(1.0)
        for part in self.parts:
            part.guess = _Guess(len(part.norm.weight))
        with torch.no_grad():
            for batch in batches:
                loss_fn(batch)
            for part in self.parts:
                router, part.guess = cast(_Guess, part.guess).router(part.norm.weight.device), None
                if router is not None:
                    cast(Tensor, part.router).copy_(router)

    def before_forward(self, step: int) -> None:
        # Never quite 1: a router that has no part in a step would stop a run of several processes.
        done = min(1.0, (step + 1) / self.settings.ramp_steps) if self.settings.ramp_steps else 1.0
        self._run_at(1 / (1 - done * (1 - 1 / self.settings.ratio)))

    def before_eval(self) -> None:
        self._run_at(self.settings.ratio)

    def _run_at(self, ratio: float) -> None:
        for part in self.parts:
            part.ratio = ratio
