"""Tensors in safetensors files: read only when they are what is expected, written for everybody to read.

A header says what a file holds before anything of it is read, so that gigabytes of nothing cost nothing.
What is read is finite and of the kind that was asked for: one NaN in a weight makes every output NaN, and a
cast from whole or complex numbers says nothing while it changes everything.
"""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ConfigError
from .text import size

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WHOLE = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
LARGEST = 1e9
"""Of a trained number. Squared, as norms do, it stays far inside float32; what is larger is no weight."""
_SPARSE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Shape:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        product = 1
        for length in self.shape:
            product *= length
        return product

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {self.shape}"


def shapes(path: str | os.PathLike[str]) -> dict[str, Shape]:
    """What a file holds, read from its header alone.

    Raises ConfigError where it cannot be read, or holds numbers of a type that nothing here computes with.
    """
    path = Path(path)
    found: dict[str, Shape] = {}
    try:
        _check_written(path)
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                part = file.get_slice(key)
                kind = part.get_dtype()
                if kind not in FLOATS and kind not in WHOLE:
                    raise ConfigError(f"{path}: {key} is of type {kind}; expected {', '.join(FLOATS)}")
                found[key] = Shape(tuple(part.get_shape()), (FLOATS | WHOLE)[kind])
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    return found


def read(path: str | os.PathLike[str], keys: Collection[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a file, or those of some keys that `shapes` gave; all are finite.

    Raises ConfigError as `shapes` does.
    """
    path = Path(path)
    wanted = shapes(path) if keys is None else keys  # a header is not read a second time
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in wanted}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ConfigError naming the first tensor with a number that no trained weight has."""
    for key, value in tensors.items():
        if problem := not_finite(value):
            raise ConfigError(f"{where}: {key} {problem}")


def not_finite(value: Tensor, most: float = LARGEST) -> str | None:
    """What is wrong with the numbers of a tensor: NaN, infinite, beyond all weights; None if nothing is."""
    if value.is_complex():
        return "holds complex numbers"
    if not value.is_floating_point() or not value.numel():
        return None
    low, high = map(float, torch.aminmax(value.detach()))  # NaN where one is
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int((~torch.isfinite(value)).sum())
        return f"has {count} of {value.numel()} numbers that are not finite (NaN or infinite)"
    if (largest := max(abs(low), abs(high))) > most:
        return f"has a number as large as {largest:.3g}; weights stay below {most:g}"
    return None


def same_kind(value: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether numbers of one type may be copied into another without a change of what they are."""
    return value == wanted or (value.is_floating_point and wanted.is_floating_point)


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file with the rights of every other new file (0666 less umask).

    Tensors may share memory and lie on any device. Raises ConfigError where one is not finite: nothing could
    read it again.
    """
    # A clone each, as safetensors refuses tensors that share memory (a network used at two sites).
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    check_finite(own, f"{os.fspath(path)} is not written")
    save_file(own, path, dict(metadata) if metadata else None)
    as_any_new_file(path)


def as_any_new_file(*paths: str | os.PathLike[str]) -> None:
    """Give files that safetensors wrote, 0600, the rights that the umask gives a new file."""
    for path in map(Path, paths):
        # A file made here tells: asking the umask itself means setting it, for all threads.
        probe = path.with_name(f".{path.name[:40]}.rights-{os.getpid()}")
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            os.chmod(path, probe.stat().st_mode & 0o777)
        finally:
            probe.unlink(missing_ok=True)


def _check_written(path: Path) -> None:
    """Raise ConfigError for a file that is nearly all holes: it was made large, and never filled."""
    about = path.stat()
    blocks = getattr(about, "st_blocks", 0) * 512  # 0 where a file system does not say
    if about.st_size > _SPARSE_BYTES and 0 < blocks < about.st_size / 100:
        raise ConfigError(f"{path} has {size(about.st_size)}, of which {size(blocks)} were ever written")


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return error if isinstance(error, ConfigError) else ConfigError(f"{path} cannot be read: {error}")
