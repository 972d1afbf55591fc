"""Merged weights in CTranslate2's layout, kept in the cache: written once, opened at once by later runs."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..backbones.whisper import Whisper
from ..errors import ConfigError
from ..files.cache import cache_dir

_FORMAT = 1  # of what is written; a part of the name, so that a better writer writes anew


def model(backbone: Whisper, adapters: Sequence[str] | None, dtype: str, device: str, **threads: int) -> Any:
    """A `ctranslate2.models.Whisper` of a backbone that has the adapters of these digests in its weights.

    None: no adapter touches the decoder, and the encoder is not used. Raises ConfigError where the weights
    cannot be written, or read again.
    """
    folder = folder_of(backbone, adapters or (), dtype)
    kind, _, number = device.partition(":")
    where = {"device": kind, "device_index": int(number or 0), "compute_type": dtype, **threads}
    for damaged in (True, False):
        try:
            return import_module("ctranslate2.models").Whisper(
                str(_written(folder, backbone, dtype)), **where
            )
        except (RuntimeError, ValueError) as error:
            if not damaged:
                raise ConfigError(f"{folder}: CTranslate2 cannot open it: {error}") from None
            shutil.rmtree(folder, ignore_errors=True)  # made again
    raise AssertionError


def folder_of(backbone: Whisper, adapters: Sequence[str], dtype: str) -> Path:
    """Where it lies, by all that its numbers come from. Raises ConfigError for weights without an address."""
    weights = backbone.card().sha256
    if weights is None:
        raise ConfigError(
            "engine: ct2 keeps weights by the digest of their files, and this model is in memory alone"
        )
    content = json.dumps([_FORMAT, weights, *adapters, dtype])
    return cache_dir() / "ct2" / hashlib.sha256(content.encode()).hexdigest()[:32]


def _written(folder: Path, backbone: Whisper, dtype: str) -> Path:
    from ..export.ct2 import write_ct2

    if not (folder / "model.bin").is_file():
        try:
            write_ct2(backbone.module, backbone, folder, dtype)
        except ConfigError:
            if not (folder / "model.bin").is_file():  # else another process was first
                raise
    return folder
