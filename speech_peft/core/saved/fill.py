"""Tensors of an adapter folder copied into what was built for them: all keys and shapes, or nothing."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import ConfigError, did_you_mean
from ...files import tensors
from .. import packing

MOST_BYTES = 8_000_000_000
"""Of one file of tensors: an adapter that changes every weight of the largest encoder has a third of that."""


def shapes_of(path: Path) -> dict[str, tensors.Shape]:
    """What a file of an adapter folder holds, from its header; raises ConfigError for what no adapter has."""
    there = tensors.shapes(path)
    if (total := sum(shape.nbytes for shape in there.values())) > MOST_BYTES:
        raise ConfigError(f"{path} holds {total / 1e9:.1f} GB of tensors; an adapter has at most 8 GB")
    return there


def fill_parts(path: Path, parts: Mapping[str, nn.Module], ignore: tuple[str, ...] = ()) -> None:
    """Copy a file's tensors over those of modules, packed ones unpacked, as strictly as `fill` does.

    Keys that begin with one of `ignore` are left alone.
    """
    own, zero, places = {}, {}, {}
    for name, part in parts.items():
        packed = packing.places(part)
        held, empty = packing.parted(part, packed)
        own |= {f"{name}.{key}": value for key, value in held.items()}
        zero |= {f"{name}.{key}": value for key, value in empty.items()}
        places |= {f"{name}.{key}": place for key, place in packed.items()}
    fill(path, own, places, ignore, zero)


@torch.no_grad()
def fill(
    path: Path,
    own: Mapping[str, Tensor],
    places: Mapping[str, packing.Place] | None = None,
    ignore: tuple[str, ...] = (),
    zero: Mapping[str, Tensor] | None = None,
) -> None:
    """Copy a file's tensors over the model's; nothing is copied unless all fits.

    `zero` is what a file need not hold, and is then set to zero.
    """
    places, zero = places or {}, zero or {}
    there = {k: shape for k, shape in shapes_of(path).items() if not k.startswith(ignore or "\0")}
    # Files of before hold the zeros too.
    own = {**own, **{key: value for key, value in zero.items() if key in there}}
    _check_shapes(path, there, own, places)
    stored = tensors.read(path, there)
    copies = [(value, stored[key]) for key, value in own.items()]
    for key, place in places.items():
        try:
            copies += place.filled(stored, key)
        except (ValueError, RuntimeError, IndexError) as error:
            raise ConfigError(f"{path}: {key} {error}") from None
    for target, value in copies:
        target.copy_(value)
    for key in zero.keys() - own.keys():
        zero[key].zero_()


def _check_shapes(
    path: Path,
    there: Mapping[str, tensors.Shape],
    own: Mapping[str, Tensor],
    places: Mapping[str, packing.Place],
) -> None:
    """Raise ConfigError unless a file holds what the model has, no more and no less, in the same types."""
    wanted = own.keys() | {key + suffix for key, place in places.items() for suffix in place.packed.suffixes}
    for key in sorted(wanted - there.keys()):
        raise ConfigError(f"{path} lacks {key!r}. {did_you_mean(key, there)}")
    for key, found in there.items():
        if key not in wanted:
            raise ConfigError(f"{path} holds {key!r}, which this model has not. {did_you_mean(key, wanted)}")
        if key not in own:
            continue  # packed, and looked at where it is unpacked
        expected = tensors.Shape(tuple(own[key].shape), own[key].dtype)
        if found.shape != expected.shape:
            raise ConfigError(f"{path}: {key} has shape {found.shape}, expected {expected.shape}")
        if not tensors.same_kind(found.dtype, expected.dtype):
            raise ConfigError(f"{path}: {key} is {found}, expected {expected}")
