"""last.ckpt, the state that a run goes on from: always whole, and the one before it is kept."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from ..errors import SpeechPeftError
from ..files.atomic import atomic_path
from ..terminal.door import complain

LAST = "last.ckpt"
BEFORE = "before_last.ckpt"
"""For the day on which the last one turns out to be damaged."""
UNREADABLE = (RuntimeError, EOFError, OSError, KeyError, ValueError, BadZipFile, pickle.UnpicklingError)


class Beside(TorchCheckpointIO):
    """Writes a state where it will be, on the same disk; Lightning's own way leads through /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        final = Path(path)
        with atomic_path(final) as half:
            torch.save(checkpoint, half)
            if final.exists():
                os.replace(final, final.with_name(BEFORE))


def load_state(path: Path) -> dict[str, Any]:
    """A checkpoint; only tensors and plain values are ever read from it."""
    return torch.load(path, map_location="cpu", weights_only=True)


def newest(out: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file and content of the last state that is whole; None where there is none.

    Raises SpeechPeftError where states are there and none can be used.
    """
    damaged = []
    for path in (out / LAST, out / BEFORE):
        if not path.exists():
            continue
        try:
            state = load_state(path)
            _check(state)
        except UNREADABLE as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            damaged.append(f"{path} cannot be used: {reason}")
            continue
        if damaged:
            complain(f"{damaged[0]}\ngoing on from the state before it, {path}")
        return path, state
    if damaged:
        raise SpeechPeftError(f"{'; '.join(damaged)}. Give --resume never to start afresh")
    return None


def forget(out: Path) -> None:
    """Remove the states of a run."""
    for name in (LAST, BEFORE):
        (out / name).unlink(missing_ok=True)


def _check(state: Any) -> None:
    """Raises ValueError for what is no state of ours, and for numbers that no training comes back from."""
    if not isinstance(state, dict) or not {"run", "state_dict", "global_step"} <= state.keys():
        raise ValueError("it is no state of a training run")
    for where, tensor in _tensors(state["state_dict"]):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{where} holds values that are not finite")


def _tensors(tree: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield where, tree
        return
    items = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    )
    for key, value in items:
        yield from _tensors(value, f"{where}.{key}".lstrip("."))
