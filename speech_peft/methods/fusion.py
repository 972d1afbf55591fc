"""AdapterFusion (Pfeiffer et al. 2021, arXiv:2005.00247) and Audio-AdapterFusion (arXiv:2310.13015).

    y' = y + V sum_n w_n d_n,        d_n = A_n(x, y) - y: what adapter n would change

    mean        w_n = 1 / N                                   nothing to train
    sum         w_n = 1                                       nothing to train
    scalar      w   = softmax(alpha)                          a number for each adapter and site
    attention   w   = softmax_n((Q q + b) . (K d_n) / T)      q = y or x: a choice at every frame

Nobody says at inference which task a clip is of. Two ways to train it: *two-phase*, the adapters each alone
first and then the fusion over them, frozen (`train: [fuse]`); or *joint*, all of them on (`train: [fuse, tel,
far]`), which writes new versions of the adapters and is the only way in which `mean` and `sum` learn.

Q and K start at random, V at the identity, so a fresh fusion is nearly the mean of its adapters. K has no
bias: it would add the same to every score. As published, `pull` times |I - V|^2 joins the loss, and scores
are not scaled, so that large changes saturate the choice: watch the entropy in metrics.jsonl. `rank: r` gives
Q and K so many rows; `value: none` or `diagonal` saves the largest matrix. `by: clip` chooses once for a
clip, by the mean of its scores over the frames that hold sound.

`guide` adds, for each site, the cross-entropy between the weights, averaged over a clip, and the adapter that
the manifest names in its column `task`; at inference nothing is read. SimAdapter (Hou et al. 2021,
arXiv:2105.11905) is `{values: output, residual: x, identity: true}`: keys and values are what adapters make
of y and not what they change, y itself is one more candidate, and the state before the sublayer is added.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Mixer
from ..core.context import Context
from ..core.lifecycle import Lifecycle, Outcome
from ..core.method import Method, Mixing, Peer
from ..core.model import AdaptedModel
from ..core.passage.routing import Notes, entropy, over_frames
from ..core.site import NESTING, Kind, Site
from ..errors import ConfigError
from ..registry import METHODS
from .bottleneck import Bottleneck

_NEAR_ZERO = 1e-6
"""Off the diagonal of a fresh V, as AdapterHub has it."""


@METHODS.register("fusion")
class Fusion(Mixing):
    """Several adapters at once, mixed by what is heard."""

    kinds: ClassVar[frozenset[Kind]] = frozenset(NESTING)

    how: Literal["attention", "scalar", "mean", "sum"] = "attention"
    by: Literal["frame", "clip"] = "frame"
    """What is chosen for: every frame, or a clip as a whole."""
    rank: PositiveInt | None = None
    """Rows of Q and K; None: as many as the site is wide."""
    value: Literal["full", "diagonal", "none"] = "full"
    """V."""
    query: Literal["y", "x"] = "y"
    temperature: PositiveFloat = 1.0
    """T."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of scores, while it trains."""
    pull: NonNegativeFloat = 0.01
    """Weight of |I - V|^2, summed over the sites, in the loss."""
    guide: NonNegativeFloat = 0.0
    """Weight of the cross-entropy between weights and the task of the clip."""
    values: Literal["change", "output"] = "change"
    """What is scored and mixed: what adapters change of y, or what they make of it."""
    residual: Literal["y", "x", "none"] = "y"
    """What the mix is added to."""
    identity: bool = False
    """Whether y as it is, is one more that can be chosen."""

    @property
    def identity_at_init(self) -> bool:
        """It begins at the mean of adapters that have learned something."""
        return False

    @property
    def sees_neighbours(self) -> bool:
        return self.how == "attention" and self.by == "clip"

    @property
    def ids(self) -> Mapping[str, tuple[str, ...]]:
        return {"task": self.over} if self.guide else {}

    def build_over(
        self, site: Site, target: nn.Module, shared: nn.Module | None, peers: Mapping[str, Peer]
    ) -> Mixer:
        if self.residual == "x" and site.dim_in != site.dim_out:
            raise ConfigError(
                f"{site.name}: fusion with residual: x, and x is {site.dim_in} wide there, y {site.dim_out}. "
                "Give residual: y, or a site that keeps the width"
            )
        return _Fusion(site, self)

    def lifecycle(self, model: AdaptedModel, adapter: str) -> "Lifecycle":
        return _Terms([model.at(adapter, site) for site in model.sites[adapter]], self)  # type: ignore[misc]

    @classmethod
    def examples(cls) -> list[Method]:
        two = ("first", "second")
        return [
            cls(over=two),
            cls(
                over=two,
                sites=("layers.*.block",),
                rank=4,
                value="diagonal",
                by="clip",
                query="x",
                temperature=2.0,
            ),
            cls(over=two, how="scalar", sites=("*.block",)),
            cls(over=(*two, "third"), value="none", values="output", residual="x", identity=True),
        ]

    def company(self) -> dict[str, Method]:
        sites = self.sites or ("*.ffn",)
        return {name: Bottleneck(width=3 + i, sites=sites) for i, name in enumerate(self.over)}


class _Fusion(Mixer):
    """The fusion of one site."""

    def __init__(self, site: Site, settings: Fusion):
        super().__init__()
        self.over, self.settings = settings.over, settings
        self.notes = Notes()
        names = len(self.over) + settings.identity
        if settings.how == "scalar":
            self.alpha = nn.Parameter(torch.zeros(names))
        if settings.how == "attention":
            asks = site.dim_out if settings.query == "y" else site.dim_in
            rank = settings.rank or site.dim_out
            self.query = nn.Linear(asks, rank)
            self.key = nn.Linear(site.dim_out, rank, bias=False)
            for layer in (self.query, self.key):  # scores then begin at one size, whatever the rank
                nn.init.normal_(layer.weight, std=0.02 * (site.dim_out / rank) ** 0.25)
            nn.init.zeros_(self.query.bias)
        if settings.how == "attention" and settings.value == "diagonal":
            self.value = nn.Parameter(torch.ones(site.dim_out))
        if settings.how == "attention" and settings.value == "full":
            near = torch.full((site.dim_out, site.dim_out), _NEAR_ZERO)
            self.value = nn.Parameter(near.fill_diagonal_(1.0))

    def forward(self, x: Tensor, y: Tensor, outputs: list[Tensor], ctx: Context) -> Tensor:
        candidates = self._candidates(y, outputs)
        weights = self.weights(x, y, candidates, ctx)
        if weights.dim() > 1:
            self.notes.take(weights, ctx)
        return self._valued(_mixed(weights, candidates)) + self._kept(x, y)

    def before(self, x: Tensor, inputs: list[Tensor], ctx: Context) -> Tensor:
        """The same mix of what enters, where nothing is chosen by what leaves."""
        return x + _mixed(self.fixed(x, len(inputs)), [one - x for one in inputs])

    @property
    def mixes_input(self) -> bool:
        return self.settings.how != "attention" and not self.settings.identity

    def _candidates(self, y: Tensor, outputs: list[Tensor]) -> list[Tensor]:
        every = [*outputs, y] if self.settings.identity else outputs
        return every if self.settings.values == "output" else [one - y for one in every]

    def _kept(self, x: Tensor, y: Tensor) -> Tensor | float:
        return {"y": y, "x": x, "none": 0.0}[self.settings.residual]

    def _valued(self, mixed: Tensor) -> Tensor:
        if self.settings.how != "attention" or self.settings.value == "none":
            return mixed
        return mixed * self.value if self.settings.value == "diagonal" else F.linear(mixed, self.value)

    def fixed(self, like: Tensor, many: int) -> Float[Tensor, " n"]:
        """The weights where they are the same everywhere."""
        if self.settings.how == "scalar":
            return self.alpha.softmax(-1)
        return like.new_full((many,), 1.0 if self.settings.how == "sum" else 1.0 / many)

    def weights(
        self, x: Float[Tensor, "b t i"], y: Float[Tensor, "b t o"], candidates: list[Tensor], ctx: Context
    ) -> Tensor:
        """Of each candidate: n numbers, or n at every frame."""
        if self.settings.how != "attention":
            return self.fixed(y, len(candidates))
        asked = F.linear(self.query(y if self.settings.query == "y" else x), self.key.weight.mT)
        scores = torch.stack([(asked * one).sum(-1) for one in candidates], -1).float()
        if self.settings.by == "clip":
            scores = over_frames(scores, ctx)[:, None].expand_as(scores)
        scores = F.dropout(scores, self.settings.dropout, self.training)
        return (scores / self.settings.temperature).softmax(-1).to(y.dtype)


def _mixed(weights: Float[Tensor, "*place n"], candidates: list[Tensor]) -> Tensor:
    """Their weighted sum, one by one: never are all of them in memory anew."""
    first, *others = zip(weights[..., None, :].unbind(-1), candidates, strict=True)
    mixed = first[0] * first[1]
    for weight, one in others:
        mixed = mixed + weight * one
    return mixed


class _Terms(Lifecycle):
    """What joins the loss, and how sharply it chooses."""

    def __init__(self, parts: list[_Fusion], settings: Fusion):
        self.parts, self.settings = parts, settings
        self.entropy: float | None = None

    def before_forward(self, step: int) -> None:
        for part in self.parts:
            part.notes.listen()

    def extra_losses(self, step: int, first: Outcome, again: Callable[[], Outcome]) -> dict[str, Tensor]:
        taken = [note for part in self.parts for note in part.notes.end()]
        if taken:
            each = [entropy(note.weights, note.ctx).detach() for note in taken]
            self.entropy = float(torch.stack(each).mean())
        away = [_away(part) for part in self.parts if hasattr(part, "value")]
        misled = [_misled(note.weights, note.ctx) for note in taken]
        terms = {
            "pull": (self.settings.pull, away),
            "guide": (self.settings.guide, [m for m in misled if m is not None]),
        }
        return {
            name: weight * torch.stack(all_).sum()
            for name, (weight, all_) in terms.items()
            if weight and all_
        }

    def numbers(self) -> dict[str, float]:
        return {} if self.entropy is None else {"entropy": self.entropy}


def _away(part: _Fusion) -> Tensor:
    """|I - V|^2."""
    one = torch.eye(len(part.value), device=part.value.device) if part.value.dim() == 2 else 1.0
    return (one - part.value).square().sum()


def _misled(weights: Float[Tensor, "b t n"], ctx: Context) -> Tensor | None:
    """The cross-entropy of the clips whose task is known; None where none is."""
    if ctx.task is None or not bool((known := ctx.task >= 0).any()):
        return None
    share = over_frames(weights, ctx)[known]
    return F.nll_loss(share.clamp_min(1e-9).log(), ctx.task[known])
