"""A checkpoint folder read by transformers; another model, or a weight that is missing, is an error."""

import json
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def extractor_settings(folder: Path) -> dict[str, Any]:
    """What the checkpoint says about its features; empty when it says nothing."""
    path = folder / "preprocessor_config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def load(model: Any, folder: Path, **options: Any) -> Any:
    """A transformers model with the weights in `folder`; raises ConfigError when a weight is missing."""
    from transformers.utils import logging

    kind = json.loads((folder / "config.json").read_text()).get("model_type", "an unnamed kind of")
    expected = model.config_class.model_type
    if "config" not in options and kind != expected:
        raise ConfigError(f"weights: {folder} holds {kind}, and what was asked for is {expected}")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar per load would break up our own progress lines
    try:
        module, report = model.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"weights: {folder} does not hold a {model.__name__}: {error}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
        raise ConfigError(
            f"weights: {folder} does not fill a {model.__name__}: {len(missing)} weights are missing or of "
            f"another shape, such as {', '.join(missing[:3])}. Is it the weights of another model?"
        )
    return module
