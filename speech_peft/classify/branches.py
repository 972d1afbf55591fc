"""One batch through a backbone for several adapters: what no adapter has touched yet runs once for all.

The adapters are taken in the order of the lowest block each of them changes. The bare states are run up to
that block, the adapter goes on from there alone, and the next one continues the bare states from the same
place: with adapters in the top blocks, or none at all (probes), most of the encoder is shared.
"""

from collections.abc import Iterator, Mapping

from jaxtyping import Float
from torch import Tensor

from ..backbones.base import Backbone, Features
from ..core.model import AdaptedModel
from ..decoders.classifier import ClassifierHead


def branches(
    backbone: Backbone,
    model: AdaptedModel,
    heads: Mapping[str, ClassifierHead],
    features: Features,
    together: Mapping[str, tuple[str, ...]] | None = None,
) -> Iterator[tuple[str, Float[Tensor, "b c"]]]:
    """The logits of each head behind the adapter of `model` of the same name; the shallowest comes first.

    `together` names all adapters that run for a head, where it is not that one alone.
    """
    runs = {name: (name,) for name in heads} | dict(together or {})
    first = {
        name: min(first_block(backbone, model, one, head.top) for one in runs[name])
        for name, head in heads.items()
    }
    mixes = any(head.layer == "mix" for head in heads.values())
    below: list[Tensor] = []  # outputs of the bare blocks so far, for heads that read them all
    with model.using():
        at, states = 0, backbone.prefix(features, 0)
    for name in sorted(heads, key=first.__getitem__):
        k = first[name]
        with model.using():
            for block in range(at, k):
                states = backbone._run(range(block, block + 1), states, features)
                if mixes:
                    below.append(backbone._in_time(states, features))
        at = k
        with model.using(*runs[name]):
            logits = heads[name].logits_from(backbone, k, states, features, below)
        yield name, logits


def first_block(backbone: Backbone, model: AdaptedModel, name: str, top: int) -> int:
    """The first block that adapter `name` changes, or `top` where it changes none of those below."""
    blocks = [block for site in model.sites[name] if (block := backbone.block_of(site)) is not None]
    return min([*blocks, top])
