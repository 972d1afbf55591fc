"""A frozen encoder small enough to read: what unit tests adapt when no backbone family matters.

It has the habits of the stock ones that ports must cope with: attention called by keyword that returns a
tuple, a feed-forward sublayer with no module of its own, blocks that return tuples.
"""

import torch
from torch import Tensor, nn

from speech_peft.backbones.base import Backbone
from speech_peft.backbones.families import tiny
from speech_peft.core.saved.save import BackboneCard
from speech_peft.core.site import Site

DIM, INNER, DEPTH = 16, 24, 2
CARD = BackboneCard(name="toy", id="tests/toy", dim=DIM, layers=DEPTH)


class Attention(nn.Module):
    causal = False

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(DIM, DIM, bias=i != 1) for i in range(4))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        scores = self.q(hidden_states) @ self.k(hidden_states).mT / DIM**0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return self.o(scores.softmax(-1) @ self.v(hidden_states)), None


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_attn, self.norm_ffn = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attn = Attention()
        self.up, self.down = nn.Linear(DIM, INNER), nn.Linear(INNER, DIM)
        self.drop = nn.Dropout(0.5)

    def forward(self, states: Tensor) -> tuple[Tensor]:
        states = states + self.attn(hidden_states=self.norm_attn(states))[0]
        return (states + self.drop(self.down(self.up(self.norm_ffn(states)).relu())),)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(DEPTH))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, states: Tensor) -> Tensor:
        for layer in self.layers:
            (states,) = layer(states)
        return states


def toy(seed: int = 0) -> Toy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Toy().eval()


def sites() -> list[Site]:
    """The toy's table, named as every backbone names its sites."""
    found = [Site("stack", "stack", "layers.0", f"layers.{DEPTH - 1}", DIM, DIM, True)]
    for i in range(DEPTH):
        block, name = f"layers.{i}", f"layers.{i}"
        found += [
            Site(f"{name}.block", "block", block, block, DIM, DIM, True),
            Site(f"{name}.tail", "tail", f"{block}.up", block, DIM, DIM, True),
            Site(f"{name}.attn", "attn", f"{block}.attn", f"{block}.attn", DIM, DIM, True),
            *(
                Site(f"{name}.attn.{n}", "linear", f"{block}.attn.{n}", f"{block}.attn.{n}", DIM, DIM, True)
                for n in "qkvo"
            ),
            Site(f"{name}.ffn", "ffn", f"{block}.up", f"{block}.down", DIM, DIM, True),
            Site(f"{name}.ffn.up", "linear", f"{block}.up", f"{block}.up", DIM, INNER, True),
            Site(f"{name}.ffn.down", "linear", f"{block}.down", f"{block}.down", INNER, DIM, True),
            Site(f"{name}.norm_ffn", "norm", f"{block}.norm_ffn", f"{block}.norm_ffn", DIM, DIM, True),
        ]
    return found


def speech(batch: int = 2, frames: int = 5, seed: int = 0) -> Tensor:
    """States as a stem would give them."""
    return torch.randn(batch, frames, DIM, generator=torch.Generator().manual_seed(seed))


def backbone_for(method: str) -> Backbone:
    """A tiny model of a real family for a method that the toy is too plain for: knitting needs a map."""
    return tiny("ast") if method == "knitting" else tiny("whisper", context="fit")
