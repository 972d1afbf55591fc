"""Tensors that a file holds in another form than the one they are trained in: bits, or what is not zero.

A `Packed` is a torch parametrisation that knows its form in a file. Adapter folders (`core/saved`) hold it
under the name of the tensor that it makes, `layers.0.ffn.branch.down.weight` and a suffix; checkpoints of
a run hold what is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .adapter import Adapter

BYTE = 8


class Packed(nn.Module):
    """Makes one tensor of an adapter out of what is trained, and knows what a file keeps of it."""

    suffixes: ClassVar[tuple[str, ...]]
    """What follows the tensor's name in the keys of a file, one for each tensor that `pack` gives."""

    def pack(self, *trained: Tensor) -> tuple[Tensor, ...]:
        """What a file holds, in the order of `suffixes`."""
        raise NotImplementedError

    def unpack(self, stored: tuple[Tensor, ...], *trained: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs of a tensor of the model and what is to be copied into it, so that it makes what was saved.

        Changes nothing by itself. Raises ValueError, saying what came and what was expected.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Place:
    """One tensor of a module that is saved in packed form."""

    key: str
    """The tensor's name, from the module on: branch.down.weight."""
    packed: Packed
    trained: tuple[Tensor, ...]

    def stored(self) -> dict[str, Tensor]:
        """What a file holds, by its key."""
        tensors = self.packed.pack(*self.trained)
        return {self.key + suffix: t for suffix, t in zip(self.packed.suffixes, tensors, strict=True)}

    def filled(self, stored: Mapping[str, Tensor], key: str) -> list[tuple[Tensor, Tensor]]:
        """What to copy where, for what a file holds of this tensor, which it knows as `key`."""
        device = self.trained[0].device
        given = tuple(stored[key + suffix].to(device) for suffix in self.packed.suffixes)
        return self.packed.unpack(given, *self.trained)


def places(module: nn.Module) -> dict[str, Place]:
    """The tensors of a module, however deep, that are saved in packed form, by name."""
    found = {}
    for path, inner in module.named_modules():
        if not parametrize.is_parametrized(inner):
            continue
        parametrizations: Any = inner.parametrizations
        for name, steps in parametrizations.items():
            if isinstance(steps[0], Packed):
                key = f"{path}.{name}".lstrip(".")
                trained = tuple(
                    p for n, p in steps.named_parameters(recurse=False) if n.startswith("original")
                )
                found[key] = Place(key, steps[0], trained)
    return found


def plain(module: nn.Module) -> dict[str, Tensor]:
    """What a file holds of the rest of a module's state; the tensors are the module's own."""
    return parted(module, places(module))[0]


def parted(module: nn.Module, packed: Mapping[str, Place]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of a module beside its `places`: what a file holds of it, and that of which it holds nothing,
    as it is zero in what is loaded."""
    prefixes = tuple(_prefix(key) for key in packed)
    state, kept = module.state_dict(), _condensed(module)
    rest = {key: value for key, value in state.items() if not key.startswith(prefixes or "\0")}
    if kept is None:
        return rest, {}
    return {key: rest[key] for key in kept}, {key: value for key, value in rest.items() if key not in kept}


def _condensed(module: nn.Module) -> dict[str, Tensor] | None:
    return module.condensed() if isinstance(module, Adapter) else None


def _prefix(key: str) -> str:
    """Where a parametrised tensor's parts are in a state: branch.down.parametrizations.weight."""
    path, _, name = key.rpartition(".")
    return f"{path}.parametrizations.{name}.".lstrip(".")


def stored(module: nn.Module) -> dict[str, Tensor]:
    """All that a file holds of a module."""
    held = plain(module) | (_condensed(module) or {})
    return held | {k: t for place in places(module).values() for k, t in place.stored().items()}


def pack_digits(digits: Int[Tensor, " n"], bits: int) -> UInt8[Tensor, " m"]:
    """Numbers below 2^bits as ceil(n bits / 8) bytes, the first in the lowest bits; the rest is 0."""
    each = BYTE // bits
    padded = nn.functional.pad(digits.to(torch.int32), (0, -len(digits) % each)).view(-1, each)
    shifts = torch.arange(0, BYTE, bits, dtype=torch.int32, device=digits.device)
    return (padded << shifts).sum(1).to(torch.uint8)


def unpack_digits(packed: UInt8[Tensor, " m"], bits: int, count: int) -> Int[Tensor, " n"]:
    """The first `count` numbers that `pack_digits` packed; raises ValueError for another number of bytes."""
    if len(packed) != (expected := -(-count * bits // BYTE)):
        raise ValueError(f"holds {len(packed)} bytes, expected {expected}: {count} times {bits} bits")
    shifts = torch.arange(0, BYTE, bits, dtype=torch.int32, device=packed.device)
    return ((packed.to(torch.int32)[:, None] >> shifts) & (2**bits - 1)).flatten()[:count]
