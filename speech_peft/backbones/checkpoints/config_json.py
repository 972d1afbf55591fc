"""The config.json of a checkpoint: read as plain values, and refused where it asks for code of others."""

from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import json_text

ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""What transformers brings. Another name, org/kernel, would be fetched from the hub and run."""
_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says. Raises ConfigError for one that would have code loaded, or weights made over."""
    path = folder / "config.json"
    config = json_text.read_object(path)
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"weights: {folder} also has an adapter_config.json, by which other weights would be loaded; "
            "merge that adapter first, or move the file away"
        )
    for part in _parts(config):
        if part.get("quantization_config"):
            raise ConfigError(f"{path}: quantization_config: quantised checkpoints are not read")
        for key in _ATTENTION_KEYS:
            _check_attention(path, key, part.get(key))
    return config


def model_type(config: dict[str, Any]) -> str:
    """The family that a configuration names; empty where it names none."""
    kind = config.get("model_type")
    return kind if isinstance(kind, str) else ""


def _check_attention(path: Path, key: str, value: Any) -> None:
    for one in value.values() if isinstance(value, dict) else (value,):
        if one is not None and one not in ATTENTIONS:
            raise ConfigError(f"{path}: {key} is {one!r:.100}; expected one of {', '.join(ATTENTIONS)}")


def _parts(config: Any) -> list[dict[str, Any]]:
    """A configuration and all that lie inside it (audio_config, encoder_config ...)."""
    found, pending = [], [config]
    while pending:
        here = pending.pop()
        if isinstance(here, dict):
            found.append(here)
        pending += here.values() if isinstance(here, dict) else here if isinstance(here, list) else []
    return found
