"""A checkpoint folder read by transformers; another model, or a weight that is missing, is an error.

Only classes that we name are asked to read it, so that nothing in a folder chooses what runs.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import json_text, tensors
from .config_json import model_type, read_config

_SHARD = re.compile(r"[\w.-]+\.safetensors")


def extractor_settings(folder: Path) -> dict[str, Any]:
    """What the checkpoint says about its features; empty when it says nothing."""
    path = folder / "preprocessor_config.json"
    return json_text.read_object(path) if path.is_file() else {}


def made(kind: Any, settings: dict[str, Any], where: object) -> Any:
    """A transformers configuration of a class that we name; ConfigError where the settings do not fit it."""
    try:
        return kind.from_dict(dict(settings))
    except Exception as error:  # each class checks in its own way, and with its own exceptions
        raise ConfigError(f"{where}: no {kind.__name__}: {_first_line(error)}") from None


def load(model: Any, folder: Path, **options: Any) -> Any:
    """A transformers model with the weights in `folder`.

    Raises ConfigError when a weight is missing, of another shape, or not finite.
    """
    config = read_config(folder)
    kind, expected = model_type(config) or "an unnamed kind of model", model.config_class.model_type
    if "config" not in options and kind != expected:
        raise ConfigError(f"weights: {folder} holds {kind}, and what was asked for is {expected}")
    if "config" not in options:
        options["config"] = made(model.config_class, config, folder / "config.json")
    _check_files(folder)
    try:
        with without_bars():
            module, report = model.from_pretrained(
                folder,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                **options,
            )
    except Exception as error:  # a wrong config.json fails wherever a layer first uses its number
        why = _first_line(error)
        raise ConfigError(f"weights: {folder} does not hold a {model.__name__}: {why}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
        raise ConfigError(
            f"weights: {folder} does not fill a {model.__name__}: {len(missing)} weights are missing or of "
            f"another shape, such as {', '.join(missing[:3])}. Is it the weights of another model?"
        )
    for key, value in module.named_parameters():
        if problem := tensors.not_finite(value, math.inf):  # stock weights are as large as they are
            raise ConfigError(f"weights: {folder}: {key} {problem}")
    return module


@contextmanager
def without_bars() -> Iterator[None]:
    """Transformers reads and writes without a bar of its own, which would break up our own lines."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _check_files(folder: Path) -> None:
    """Raise ConfigError unless all weights are safetensors inside the folder, and were written."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = json_text.read_object(index).get("weight_map")
        for name in names.values() if isinstance(names, dict) else ("no weight_map",):
            if not (isinstance(name, str) and _SHARD.fullmatch(name)):
                raise ConfigError(f"{index}: {name!r:.100} is no safetensors file of this folder")
    for file in folder.glob("model*.safetensors"):
        tensors.shapes(file)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
