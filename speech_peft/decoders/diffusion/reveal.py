"""Which masked places are filled next: policies by name, pure functions of what the decoder says of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SURE, ENDS = 1e9, 1e3


@dataclass(frozen=True)
class Guess:
    """What the decoder says of each place."""

    probability: Float[Tensor, "r n"]
    """Of the likeliest token."""
    entropy: Float[Tensor, "r n"]
    """Of all tokens, in nats."""
    masked: Bool[Tensor, "r n"]
    ends: Bool[Tensor, "r n"]
    """Where the end of text is the likeliest."""
    left: int
    """Passes that are left, this one included."""
    bound: float = 0.1
    bias: float = 0.0

    @property
    def least(self) -> Tensor:
        """How many places each text must fill now, to be whole after the passes that are left.

        Ends do not count: behind the first nothing is asked, however long the bucket is.
        """
        if self.left <= 1:
            return self.masked.sum(1)
        return -(-(self.masked & ~self.ends).sum(1) // self.left)


Policy = Callable[[Guess], Bool[Tensor, "r n"]]
POLICIES: dict[str, Policy] = {}


def policy(name: str) -> Callable[[Policy], Policy]:
    def register(function: Policy) -> Policy:
        POLICIES[name] = function
        return function

    return register


@policy("confidence")
def by_confidence(guess: Guess) -> Bool[Tensor, "r n"]:
    """The surest, equally many in each pass."""
    return _first(guess, _order(guess), guess.least.clamp(min=1))


@policy("entropy")
def by_entropy(guess: Guess) -> Bool[Tensor, "r n"]:
    """The surest, as long as their entropies less the largest stay under the bound (arXiv:2505.24857).

    Several places are filled as if they knew nothing of each other, and by the sum of their entropies, less
    that of one, is bounded how much that can be wrong. The bias prefers what stands to the left: what follows
    a gap may still move (MDM-ASR, arXiv:2602.18952).
    """
    order = _order(guess)
    entropy = guess.entropy.masked_fill(~guess.masked, 0.0).gather(1, order)
    spent = entropy.cumsum(1) - entropy.cummax(1).values
    count = ((spent <= guess.bound) & guess.masked.gather(1, order)).sum(1)
    return _first(guess, order, torch.maximum(count, guess.least).clamp(min=1))


def _order(guess: Guess) -> Tensor:
    """Masked places, the surest first; ends, of which it is sure long before it knows the text, last."""
    length = guess.masked.shape[1]
    place = torch.arange(length, device=guess.masked.device) / length
    key = guess.probability - guess.bias * place - ENDS * guess.ends
    return key.masked_fill(~guess.masked, -SURE).argsort(dim=1, descending=True, stable=True)


def _first(guess: Guess, order: Tensor, count: Tensor) -> Bool[Tensor, "r n"]:
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order).contiguous())
    return guess.masked & (rank < count[:, None])
