"""A classifier on encoder states: which states, how they become one vector, and what reads it.

Which states (`layer`), pooled over time (`pooling`), `standardise`d, through a linear layer or an MLP.
A learned mix of layers weighs them by a softmax (Peters et al. 2018, arXiv:1802.05365; SUPERB,
arXiv:2105.01051). Each layer is normalised per frame before it is mixed, as SUPERB's toolkit does on request:
the raw streams of deep blocks are many times louder than those of the first.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone, Features
from ..errors import ConfigError

Head = Literal["linear", "mlp"]
Pooling = Literal["mean", "attention", "native"]
Layer = Literal["last", "mix"] | int
States = Float[Tensor, "b t d"] | Sequence[Float[Tensor, "b t d"]]


class ClassifierHead(nn.Module):
    """Encoder states to one logit per label.

    `labels` are the classes in the order of the logits, `depth` is the number of the backbone's blocks.
    """

    mean: Float[Tensor, "l d"]
    std: Float[Tensor, "l d"]

    def __init__(
        self,
        dim: int,
        labels: Sequence[str],
        *,
        head: Head = "linear",
        pooling: Pooling = "mean",
        layer: Layer = "last",
        depth: int = 1,
        multi_label: bool = False,
        standardise: bool = False,
    ):
        super().__init__()
        _check(layer, depth, pooling, standardise)
        self.dim, self.labels, self.layer, self.depth = dim, tuple(labels), layer, depth
        self.head, self.pooling, self.multi_label, self.standardise = head, pooling, multi_label, standardise
        layers = depth + 1 if layer == "mix" else 1
        self.weights = nn.Parameter(torch.zeros(layers)) if layer == "mix" else None
        self.attend = nn.Linear(dim, 1, bias=False) if pooling == "attention" else None
        if self.attend is not None:  # all frames weigh the same at first: attention starts as the mean
            nn.init.zeros_(self.attend.weight)
        if standardise:
            self.register_buffer("mean", torch.zeros(layers, dim))
            self.register_buffer("std", torch.ones(layers, dim))
        out = nn.Linear(dim, len(self.labels))
        self.read = out if head == "linear" else nn.Sequential(nn.Linear(dim, dim), nn.GELU(), out)

    def config(self) -> dict[str, Any]:
        """What builds the same head again, as adapter.json keeps it."""
        return {
            "labels": list(self.labels),
            "head": self.head,
            "pooling": self.pooling,
            "layer": self.layer,
            "depth": self.depth,
            "multi_label": self.multi_label,
            "standardise": self.standardise,
        }

    # ---- from a backbone ----------------------------------------------------------------------------------

    @property
    def top(self) -> int:
        """How many of the backbone's blocks are needed."""
        return self.layer if isinstance(self.layer, int) else self.depth

    def logits(self, backbone: Backbone, features: Features) -> Float[Tensor, "b c"]:
        """Logits of a batch of features, running no more blocks than are needed."""
        return self.logits_from(backbone, 0, backbone.prefix(features, 0), features)

    def logits_from(
        self,
        backbone: Backbone,
        k: int,
        states: Float[Tensor, "b t d"],
        features: Features,
        below: Sequence[Float[Tensor, "b t d"]] = (),
    ) -> Float[Tensor, "b c"]:
        """Logits from the states that enter block `k` <= `top`.

        A mix of layers reads the outputs of all blocks: `below` gives those of the first `k`, in time.
        """
        return self.logits_of(self.pooled_from(backbone, k, states, features, below))

    def pooled_from(
        self,
        backbone: Backbone,
        k: int,
        states: Float[Tensor, "b t d"],
        features: Features,
        below: Sequence[Float[Tensor, "b t d"]] = (),
    ) -> Float[Tensor, "b l d"]:
        """The pooled states before standardisation, one vector for each layer that is read."""
        if self.pooling == "native":
            pooled = backbone.encode_from(k, states, features).pooled
            if pooled is None:
                raise ConfigError(f"task.pooling: {backbone.name} has no summary of its own; use mean")
            return pooled[:, None].float()
        if self.layer == "mix":
            if len(below) != k:
                raise ConfigError(
                    f"a mix of layers needs the outputs of all {k} blocks below, got {len(below)}"
                )
            layers = [*below, *backbone.layers_from(k, states, features)]
        elif isinstance(self.layer, int):
            layers = [backbone.layer_from(k, states, features, self.layer)]
        else:
            layers = [backbone.encode_from(k, states, features).states]
        return self.pool(layers, backbone.mask_of(features, layers[-1]))

    # ---- from states --------------------------------------------------------------------------------------

    def forward(self, hidden: States, mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b c"]:
        """Logits from the states of the layer that is read, or from those of all layers for a mix."""
        return self.logits_of(self.pool([hidden] if isinstance(hidden, Tensor) else hidden, mask))

    def pool(
        self, layers: Sequence[Float[Tensor, "b t d"]], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b l d"]:
        """One vector per layer: a weighted mean over the frames that hold sound."""
        if self.weights is not None and len(layers) != len(self.weights):
            raise ConfigError(f"this head mixes {len(self.weights)} layers, got {len(layers)}")
        with torch.autocast(mask.device.type, enabled=False):
            states = torch.stack([layer.float() for layer in layers], 1)
            if self.weights is not None:
                states = F.layer_norm(states, states.shape[-1:])
            score = self.attend(states)[..., 0] if self.attend else states.new_zeros(states.shape[:-1])
            share = score.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
            return (share[..., None] * states).sum(2)

    def logits_of(self, pooled: Float[Tensor, "b l d"]) -> Float[Tensor, "b c"]:
        """Always float32: a vector per clip costs nothing."""
        with torch.autocast(pooled.device.type, enabled=False):
            if self.standardise:
                pooled = (pooled - self.mean) / self.std
            if self.weights is None:
                return self.read(pooled[:, 0])
            return self.read((self.weights.softmax(0)[:, None] * pooled).sum(1))

    @torch.no_grad()
    def fit_standard(self, pooled: Float[Tensor, "n l d"]) -> None:
        """Take mean and deviation from the pooled states of a training set; call once, before step 0."""
        deviation, mean = torch.std_mean(pooled, dim=0, correction=0)
        self.mean.copy_(mean)
        # A channel that never moves carries nothing; divided by next to nothing it would drown the others.
        self.std.copy_(deviation.clamp(min=1e-5 * float(deviation.max().clamp(min=1e-5))))

    def probabilities(self, logits: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Of each label: they sum to one, or with `multi_label` stand each for itself."""
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)


def _check(layer: Layer, depth: int, pooling: Pooling, standardise: bool) -> None:
    if isinstance(layer, int) and not 1 <= layer <= depth:
        raise ConfigError(f"task.layer: {layer} is not one of the {depth} blocks that run, 1 to {depth}")
    if pooling == "native" and layer != "last":
        raise ConfigError(f"task.pooling: native is the summary of the last layer; task.layer is {layer!r}")
    if pooling == "attention" and standardise:
        raise ConfigError(
            "task.standardise: what attention pools changes while it learns, so it has no fixed mean; use "
            "task.pooling=mean"
        )
