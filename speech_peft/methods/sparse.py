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

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.distributed as dist
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.lifecycle import Lifecycle
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.packing import Packed, pack_digits, unpack_digits
from ..core.wrapping import Wrapping, constraints, generator
from ..errors import ConfigError, SpeechPeftError
from ..registry import METHODS

Score = Literal["random", "magnitude", "snip", "grasp", "synflow", "er"]
Loss = Callable[[Any], Tensor]
BLIND = ("random", "er")  # to the weights


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
        shown = list(batches) if method.score in ("snip", "grasp") else []
        self.model.eval()
        for t in range(1, method.rounds + 1):
            scores = self._scores(loss_fn, shown)
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
        chosen = [_highest(score.flatten(), count) for score, count in zip(scores, counts, strict=True)]
        for mask, flat in zip(self.masks, torch.cat(chosen).split(sizes), strict=True):
            mask.copy_(flat.view_as(mask))

    def _scores(self, loss_fn: Loss, batches: Sequence[Any]) -> list[Tensor]:
        match self.method.score:
            case "random" | "er":
                drawn = generator("sparse", self.method.seed)
                return [torch.rand(w.shape, generator=drawn).to(w.device) for w in self.weights]
            case "magnitude":
                found = [weight.detach().abs() for weight in self.weights]
            case "snip":
                found = self._times_weights(self._gradient(loss_fn, batches))
            case "grasp":
                found = self._flow(loss_fn, batches)
            case "synflow":
                found = self._synflow()
        return [s.abs() for s in found] if self.method.score != "grasp" else found

    def _times_weights(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        return [weight.detach() * g for weight, g in zip(self.weights, gradients, strict=True)]

    def _grad(self, value: Tensor, graph: bool = False) -> list[Tensor]:
        """Of a number by all weights; zero for those it does not depend on."""
        found = torch.autograd.grad(value, self.weights, create_graph=graph, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(self.weights, found, strict=True)]

    def _gradient(self, loss_fn: Loss, batches: Sequence[Any]) -> list[Tensor]:
        """Of the loss, summed over the batches of every process."""
        return _summed([self._grad(loss_fn(batch)) for batch in batches])

    def _flow(self, loss_fn: Loss, batches: Sequence[Any]) -> list[Tensor]:
        """W (H g), H g being the gradient of g · stopped g."""
        stopped, products = self._gradient(loss_fn, batches), []
        try:
            with sdpa_kernel(SDPBackend.MATH):  # the only attention with second derivatives
                for batch in batches:
                    g = self._grad(loss_fn(batch), graph=True)
                    flow = torch.stack([(a * b).sum() for a, b in zip(g, stopped, strict=True)]).sum()
                    products.append(self._grad(flow))
        except RuntimeError as error:
            if "derivative" not in str(error) and "does not require grad" not in str(error):
                raise
            raise SpeechPeftError(
                f"sparse: grasp needs second derivatives, which this loss has not ({error}); use score=snip"
            ) from error
        return self._times_weights(_summed(products))

    def _synflow(self) -> list[Tensor]:
        if self.method.reads:
            fields = ", ".join(sorted(self.method.reads))
            raise ConfigError(
                f"sparse: synflow shows adapters ones, and this one reads {fields} too; use snip"
            )
        parameters = self.model.parameters_of(self.adapter)
        before = [parameter.detach().clone() for parameter in parameters]
        for parameter in parameters:
            parameter.data.abs_()
        made = [self._made_of_ones(site) for site in self.model.sites[self.adapter]]
        scores = self._times_weights(self._grad(torch.stack(made).sum()))
        for parameter, value in zip(parameters, before, strict=True):
            parameter.data.copy_(value)
        return scores

    def _made_of_ones(self, site: Any) -> Tensor:
        """The sum of all that an adapter makes of a few frames of ones."""
        part, ctx = self.model.at(self.adapter, site), Context()
        assert isinstance(part, Adapter), "a mixer has nothing to mix here"
        # A norm makes zeros of ones, whatever stands behind it.
        norms = [module for module in part.modules() if isinstance(module, nn.LayerNorm)]
        handles = [norm.register_forward_hook(lambda module, given, made: given[0]) for norm in norms]
        x, y = (self.weights[0].new_ones(1, 4, dim) for dim in (site.dim_in, site.dim_out))
        found = [part(x, y, ctx), *([part.before(x, ctx)] if part.changes_input else [])]
        found += (part.added(x, ctx) or ()) if part.changes_attention else ()
        for handle in handles:
            handle.remove()
        return torch.stack([one.sum() for one in found]).sum()


def _summed(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """By matrix, over batches and processes."""
    found = [torch.stack(column).sum(0) for column in zip(*rows, strict=True)]
    if dist.is_available() and dist.is_initialized():
        for one in found:
            dist.all_reduce(one)
    return found


def _highest(scores: Tensor, count: int) -> Tensor:
    """True at the `count` highest; raises SpeechPeftError where scores decide nothing."""
    if not scores.nan_to_num(neginf=0.0).any() or scores.isnan().any() or scores.isposinf().any():
        what = "not finite" if scores.isnan().any() or scores.isposinf().any() else "all zero"
        raise SpeechPeftError(
            f"sparse: {scores.numel()} scores are {what}, so no weight can be chosen. Is the adapter active "
            "and heard by the loss? Else give init_std, or score=random"
        )
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def erdos_renyi(shapes: Sequence[tuple[int, ...]], density: float) -> list[int]:
    """How many weights each matrix keeps: together exactly round(density n), none more than it has."""
    sizes, sums = [math.prod(shape) for shape in shapes], [sum(shape) for shape in shapes]
    budget, exact = round(density * sum(sizes)), [math.inf] * len(shapes)
    full: set[int] = set()
    while any(wanted > size for wanted, size in zip(exact, sizes, strict=True)):
        # share_i n_i = epsilon sum(shape_i), for all that are not full
        open_ = [i for i in range(len(shapes)) if i not in full]
        left = budget - sum(sizes[i] for i in full)
        epsilon = left / max(1, sum(sums[i] for i in open_))
        exact = [sizes[i] if i in full else epsilon * sums[i] for i in range(len(shapes))]
        full |= {i for i in open_ if exact[i] > sizes[i]}
    counts = [math.floor(wanted) for wanted in exact]
    by_rest = sorted(range(len(shapes)), key=lambda i: counts[i] - exact[i])
    for i in by_rest[: budget - sum(counts)]:
        counts[i] += 1
    return counts
