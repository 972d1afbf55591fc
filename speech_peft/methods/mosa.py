"""MoSA: one adapter learned as sparse experts that share no weight (Zhang et al. 2023, arXiv:2312.02923).

    split       M_1 + ... + M_N = 1, at random, of equal size
    train       W_e = W_0 + M_e * (W - W_0)     for one e a pass, W_0: what the matrix started at
    merge       W'  = (W_1 + ... + W_N) / N = W_0 + (W - W_0) / N

Each training pass draws an expert for each matrix by itself, the same in every process and for the whole
batch (all of a step's batches, where gradients are accumulated). Only what was drawn is stepped: the
optimiser neither moves nor decays the other experts. Validation and saving see the merged matrix. A file
holds that alone, and inference costs what the host costs.

`share: down`, as published, splits the matrices that widen and leaves those that narrow to all experts; `up`
the reverse; `none` splits both. Biases are never split. Under `down` the merged adapter is the mean of the
experts; under `none` a product of two means is not the mean of products.

A second pass with other experts is to agree with the first. Its own loss counts `second` (0 as published),
and `agreement` (1) their symmetric divergence, each pass being the other's target:

    (KL(stop q || p) + KL(stop p || q)) / 2

over classes, tokens or frames of characters, whichever the task predicts; of restored features it is the mean
squared difference. It doubles the cost of a step; agreement: 0 leaves it out.

The merge is a mean: from U = 0 the learned matrix is at work with 1 / N of its strength, and each weight is
stepped 1 / N as often. Give more steps or N times the host's scale before judging it.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..core.current import Current
from ..core.lifecycle import Lifecycle, Outcome, Predicted
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.packing import Packed
from ..core.wrapping import Wrapping, constraints, generator
from ..errors import ConfigError, SpeechPeftError
from ..registry import METHODS


@METHODS.register("mosa")
class Mosa(Wrapping):
    """The matrices of another method learned as sparse experts, and merged into one."""

    instead: ClassVar[str] = "give share: none, which splits those too that all experts would share"

    experts: PositiveInt = 4
    share: Literal["down", "up", "none"] = "down"
    """Which matrices all experts share."""
    second: NonNegativeFloat = 0.0
    agreement: NonNegativeFloat = 1.0
    seed: int = 0

    def constraint(self, key: str, weight: nn.Parameter) -> Packed | None:
        if direction(weight) == self.share:
            return None
        if weight.numel() < self.experts:
            raise ConfigError(f"mosa: {key} has {weight.numel()} weights, too few for {self.experts} experts")
        return Split(("mosa", self.seed, key), self.experts, weight.numel())

    def lifecycle(self, model: AdaptedModel, adapter: str) -> Lifecycle:
        return _Draws(model, adapter, self)

    @classmethod
    def examples(cls) -> list[Method]:
        bottleneck = {"method": "bottleneck", "width": 6}
        lora = {"method": "lora", "rank": 3, "sites": ["*.attn.[qv]"]}
        return [cls.model_validate({"of": bottleneck}), cls.model_validate({"of": lora, "share": "none"})]


def direction(weight: Tensor) -> Literal["down", "up"] | None:
    """Whether a matrix gives fewer channels than it reads numbers for each, or more; None for as many."""
    given, read = weight.shape[0], weight[0].numel()
    return None if given == read else "down" if given < read else "up"


class Split(Packed):
    """N vectors, one for each expert's own weights, to the matrix of one expert or to their mean.

    Vectors of their own: what the optimiser keeps of them is apart, as with N copies, at the size of one.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("",)
    start: Tensor
    order: Tensor
    owner: Tensor
    current: Current | None = None
    adapter: str = ""
    """Whose draws it follows, once a procedure draws any."""

    def __init__(self, key: tuple[object, ...], experts: int, size: int):
        super().__init__()
        self.key, self.experts = key, experts
        shuffled = torch.randperm(size, generator=generator(*key))
        self.chunks = [len(chunk) for chunk in shuffled.tensor_split(experts)]
        owner = torch.repeat_interleave(torch.arange(experts), torch.tensor(self.chunks))
        # Both follow from the key, so neither checkpoints nor files hold them.
        self.register_buffer("order", shuffled.argsort(), persistent=False)
        self.register_buffer("owner", owner[self.order], persistent=False)
        self.register_buffer("start", torch.empty(0))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The vectors, when a matrix comes under its constraint."""
        self.start = weight.detach().clone()
        return self._vectors(weight)

    def _vectors(self, weight: Tensor) -> tuple[Tensor, ...]:
        parts = weight.detach().flatten()[self.order.argsort()].split(self.chunks)
        return tuple(part.clone() for part in parts)

    def mask(self, expert: int) -> Tensor:
        """M_e."""
        return (self.owner == expert).view_as(self.start)

    def forward(self, *vectors: Tensor) -> Tensor:
        weight = torch.cat(vectors)[self.order].view_as(self.start)
        draw = self.current.draws.get(self.adapter) if self.current is not None and self.training else None
        if draw is not None:
            # All vectors have a part in it, with a gradient of zero: DDP waits for every parameter.
            return torch.where(self.mask(self.expert(draw)), weight, self.start)
        return self.merged(weight)

    def merged(self, weight: Tensor) -> Tensor:
        """The mean of the experts; exactly the weight where there is one, or where none has learned."""
        return weight if self.experts == 1 else self.start + (weight - self.start) / self.experts

    def expert(self, draw: int) -> int:
        """Which expert a draw names, here."""
        return int(torch.randint(self.experts, (), generator=generator(*self.key, draw)))

    def pack(self, *trained: Tensor) -> tuple[Tensor, ...]:
        return (self.merged(torch.cat([one.detach() for one in trained])[self.order].view_as(self.start)),)

    def unpack(self, stored: tuple[Tensor, ...], *trained: Tensor) -> list[tuple[Tensor, Tensor]]:
        (weight,) = stored
        if weight.shape != self.start.shape:
            raise ValueError(f"has shape {tuple(weight.shape)}, expected {tuple(self.start.shape)}")
        # From here it could be split again: every expert is the merged one.
        return [*zip(trained, self._vectors(weight), strict=True), (self.start, weight)]


class _Draws(Lifecycle):
    """Names each pass's draw, and keeps those that were not drawn from the optimiser."""

    def __init__(self, model: AdaptedModel, adapter: str, method: Mosa):
        self.method, self.current, self.adapter = method, model.current, adapter
        found = [pair for part in model._parts(adapter) for pair in constraints(part, Split)]
        self.splits = [(split, list(steps.parameters(recurse=False))) for steps, split in found]
        for split, _ in self.splits:
            split.current, split.adapter = self.current, adapter
        self.drawn: set[int] = set()

    def before_forward(self, step: int) -> None:
        self._draw(2 * step)
        self.drawn.add(2 * step)

    def _draw(self, draw: int | None) -> None:
        self.current.draw(self.adapter, draw)

    def extra_losses(self, step: int, first: Outcome, again: Callable[[], Outcome]) -> dict[str, Tensor]:
        if not (self.method.second or self.method.agreement):
            return {}
        self._draw(2 * step + 1)
        self.drawn.add(2 * step + 1)
        other = again()
        self._draw(2 * step)
        losses = {}
        if self.method.second:
            losses["second"] = self.method.second * other.loss
        if self.method.agreement:
            losses["agreement"] = self.method.agreement * disagreement(first.predicted, other.predicted)
        return losses

    def after_backward(self) -> None:
        for split, vectors in self.splits:
            drawn = {split.expert(draw) for draw in self.drawn}
            for expert, vector in enumerate(vectors):
                if expert not in drawn:
                    vector.grad = None
        self.drawn.clear()

    def before_eval(self) -> None:
        self._draw(None)


def disagreement(first: Predicted | None, other: Predicted | None) -> Tensor:
    """How far two predictions of one batch lie apart; zero where they are equal.

    Raises SpeechPeftError for tasks that predict nothing comparable.
    """
    if first is None or other is None:
        raise SpeechPeftError(
            "mosa: this task predicts nothing on which two passes could agree; give agreement=0"
        )
    p, q = first.values.float(), other.values.float()
    if first.kind == "values":
        return F.mse_loss(p, q, reduction="sum") / max(p.numel(), 1)
    if first.kind == "labels":  # each a choice of two
        p, q = (torch.stack([F.logsigmoid(v), F.logsigmoid(-v)], -1).flatten(0, 1) for v in (p, q))
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    there, back = (F.kl_div(a, b.detach(), reduction="sum", log_target=True) for a, b in ((p, q), (q, p)))
    return (there + back) / (2 * max(len(p), 1))
