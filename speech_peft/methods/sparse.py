"""Adapters most of whose weights are zero, decided before training (He et al. 2022, arXiv:2210.04284).

    W' = M * W      M: zeros and ones, a share `density` of them ones, fixed before step 0

Which weights stay is what scores say, over all matrices together (`scope: global`) or in each (`local`).
The highest stay, as many as density times all, rounded; biases and norms always do.

    random      a random number
    magnitude   |W|
    snip        |W g|, g being the loss's gradient, summed over batches (arXiv:1810.02340)
    grasp       W (H g), with its sign: what the flow of gradients needs most stays (arXiv:2002.07376)
    synflow     |W dR/dW| at |W|, R being what the adapter makes of ones, norms left out (arXiv:2006.05467)
    er          random; a matrix of o x i (x k) keeps a share proportional to (o + i + k) / (o i k), at most
                all of it (arXiv:1707.04780, arXiv:1911.11134): local where all are of one shape

With `rounds` T they go in T rounds, density^(t / T) staying after the t-th, scored anew each time. In a run
of several processes all have one mask: gradients are those of all.

A matrix U that starts at zero has the score zero, in snip |U g|, and as D's gradient passes through U, so has
D: every weight would tie. Such hosts are refused in all but random and er, unless `init_std` says what their
zeros start at (0.02 as published); a fresh adapter then is no identity.

`large: c` is Large-Sparse: a host c times as wide at density 1 / c, with as many weights as it had before.

Of n weights of which k stay a file holds 4 k bytes, and ceil(n / 8) that say which. Nothing runs faster.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from ..core.lifecycle import Lifecycle
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.packing import Packed, pack_digits, unpack_digits
from ..core.wrapping import Wrapping, constraints
from ..errors import ConfigError
from ..registry import METHODS
from .pruning.counts import erdos_renyi, highest
from .pruning.scores import BLIND, BY_LOSS, Loss, Score, Scores


@METHODS.register("sparse")
class Sparse(Wrapping):
    """The matrices of another method with most of their weights at zero."""

    score: Score = "snip"
    density: float | None = Field(default=None, gt=0, le=1)
    """The share of weights that stay; 0.6 unless `large` says it."""
    scope: Literal["global", "local"] = "global"
    rounds: PositiveInt = 1
    large: PositiveInt | None = None
    """How many times as wide the host gets: its `width` or its `rank` (and `alpha`)."""
    init_std: PositiveFloat | None = None
    """Of a normal distribution truncated at twice that, for matrices that the host starts at zero."""
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> "Sparse":
        if self.large is not None and self.density is not None:
            raise ValueError("density: large sets it to 1 / large; give one of the two")
        if self.rounds > 1 and self.score in BLIND:
            raise ValueError(f"rounds: {self.score} learns nothing from one round for the next; leave it out")
        self._wide(self.of)
        return self

    @property
    def share(self) -> float:
        """How many of all weights stay."""
        return 1 / self.large if self.large else 0.6 if self.density is None else self.density

    @property
    def host(self) -> Method:
        return self._wide(super().host)

    def _wide(self, host: Method) -> Method:
        fields = host.model_dump()
        if self.large is None:
            return host
        if fields.get("reduction"):
            return host.model_copy(update={"reduction": fields["reduction"] / self.large})
        scaled = {name: fields[name] * self.large for name in ("width", "rank", "alpha") if fields.get(name)}
        if not scaled.keys() & {"width", "rank"}:
            raise ConfigError(f"large: {host.name} has neither width nor rank nor reduction to widen")
        return host.model_copy(update=scaled)

    @property
    def identity_at_init(self) -> bool:
        # The mask leaves zeros where they are, and nothing else.
        return self.init_std is None and self.host.zero_at_init

    def constraint(self, key: str, weight: nn.Parameter) -> Packed:
        if not weight.any():
            if (std := self.init_std) is not None:
                nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
            elif self.score not in BLIND:
                raise ConfigError(
                    f"sparse: {key} starts at zero, so by {self.score} its scores are all zero, and by snip "
                    "those of the matrix before it too, whose gradient passes through it. Give "
                    "init_std=0.02, as published, a host that starts elsewhere, or score=random"
                )
        return Masked(weight)

    def lifecycle(self, model: AdaptedModel, adapter: str) -> Lifecycle:
        return _Prune(model, adapter, self)

    @classmethod
    def examples(cls) -> list[Method]:
        bottleneck = {"method": "bottleneck", "width": 6}
        lora = {"method": "lora", "rank": 3, "sites": ["*.attn.[qv]"]}
        return [
            cls.model_validate({"of": bottleneck, "score": "random", "density": 0.5}),
            cls.model_validate({"of": lora, "init_std": 0.02, "large": 2}),
        ]


class Masked(Packed):
    """W to M * W."""

    suffixes: ClassVar[tuple[str, ...]] = (".mask", ".values")
    mask: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)

    def pack(self, *trained: Tensor) -> tuple[Tensor, Tensor]:
        return pack_digits(self.mask.flatten(), 1), trained[0].detach()[self.mask]

    def unpack(self, stored: tuple[Tensor, ...], *trained: Tensor) -> list[tuple[Tensor, Tensor]]:
        packed, values = stored
        mask = unpack_digits(packed, 1, self.mask.numel()).bool().view_as(self.mask)
        if values.shape != (kept := (int(mask.sum()),)):
            raise ValueError(f"has {values.numel()} values, expected {kept[0]}, as many as its mask keeps")
        weight = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
        weight[mask] = values
        return [(trained[0], weight), (self.mask, mask)]


class _Prune(Lifecycle):
    """Scores before step 0, then keeps the masks."""

    def __init__(self, model: AdaptedModel, adapter: str, method: Sparse):
        self.model, self.adapter, self.method = model, adapter, method
        found = [pair for part in model._parts(adapter) for pair in constraints(part, Masked)]
        self.weights = [cast("nn.Parameter", steps.original) for steps, _ in found]
        self.masks = [masked.mask for _, masked in found]

    def on_fit_start(self, loss_fn: Loss, batches: Iterable[Any]) -> None:
        if not all(mask.all() for mask in self.masks):
            return  # learning goes on from an adapter whose mask was chosen
        method, training = self.method, self.model.training
        shown = list(batches) if method.score in BY_LOSS else []
        self.model.eval()
        scored = Scores(self.model, self.adapter, self.weights)
        for t in range(1, method.rounds + 1):
            scores = scored.by(method.score, method.seed, loss_fn, shown)
            # What has gone stays away, whatever its score.
            kept = [s.masked_fill(~mask, -torch.inf) for s, mask in zip(scores, self.masks, strict=True)]
            self._keep(kept, method.share ** (t / method.rounds))
        self.model.train(training)

    def _keep(self, scores: list[Tensor], density: float) -> None:
        """The masks of the highest scores; among equals the first ones stay."""
        sizes = [score.numel() for score in scores]
        if self.method.score == "er":
            counts = erdos_renyi([tuple(weight.shape) for weight in self.weights], density)
        elif self.method.scope == "local":
            counts = [round(density * size) for size in sizes]
        else:
            scores, counts = [torch.cat([score.flatten() for score in scores])], [round(density * sum(sizes))]
        chosen = [highest(score.flatten(), count) for score, count in zip(scores, counts, strict=True)]
        for mask, flat in zip(self.masks, torch.cat(chosen).split(sizes), strict=True):
            mask.copy_(flat.view_as(mask))
