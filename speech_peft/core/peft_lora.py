"""LoRA in PEFT's own two files, written and read with a difference of exactly nothing.

    adapter_config.json         r, lora_alpha, target_modules as a regular expression of full paths
    adapter_model.safetensors   base_model.model.<path>.lora_A.weight, ….lora_B.weight

The file names differ from ours, so the two formats cannot be mistaken for each other.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ConfigError
from ..registry import METHODS
from .model import AdaptedModel
from .site import Site

PREFIX = "base_model.model."

# Settings that change what the two matrices mean; a folder that uses one is refused by its name.
_UNSUPPORTED = {
    "use_dora": False,
    "use_rslora": False,
    "use_qalora": False,
    "modules_to_save": None,
    "alpha_pattern": {},
    "rank_pattern": {},
    "fan_in_fan_out": False,
    "lora_bias": False,
    "bias": "none",
    "layer_replication": None,
    "trainable_token_indices": None,
    "target_parameters": None,
}


def export_peft(model: AdaptedModel, name: str, folder: str | Path, base_id: str) -> Path:
    """Write adapter `name`, a LoRA, as a folder that stock PEFT loads; ConfigError for other methods."""
    method = model.methods[name]
    if method.name != "lora":
        raise ConfigError(f"adapter {name!r} is a {method.name}; PEFT's files can hold only a lora")
    settings: Any = method
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for site in model.sites[name]:
        part: Any = model.at(name, site)
        tensors[f"{PREFIX}{site.exit}.lora_A.weight"] = part.a.detach().contiguous().clone()
        tensors[f"{PREFIX}{site.exit}.lora_B.weight"] = part.b.detach().contiguous().clone()
    paths = "|".join(re.escape(site.exit) for site in model.sites[name])
    config = {
        "peft_type": "LORA",
        # No task type: PEFT would call the model with input_ids, which no speech model takes.
        "task_type": None,
        "base_model_name_or_path": base_id,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": f"({paths})",
        "bias": "none",
        "inference_mode": True,
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def import_peft(folder: str | Path, base: torch.nn.Module, sites: Sequence[Site], name: str) -> AdaptedModel:
    """Attach a PEFT LoRA folder to `base` as adapter `name`.

    Raises ConfigError naming the setting or the module that has no counterpart here.
    """
    folder = Path(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    if config.get("peft_type") != "LORA":
        raise ConfigError(f"{folder}: peft_type is {config.get('peft_type')!r}; only LORA can be read")
    for key, neutral in _UNSUPPORTED.items():
        if config.get(key, neutral) not in (neutral, None, [], {}):
            raise ConfigError(f"{folder}/adapter_config.json: {key}={config[key]!r} is not supported")
    stored = load_file(folder / "adapter_model.safetensors")
    by_path = {site.exit: site for site in sites if site.kind == "linear"}
    used: dict[str, Site] = {}
    for key in stored:
        path = key.removeprefix(PREFIX).rsplit(".lora_", 1)[0]
        if path not in by_path:
            raise ConfigError(f"{folder}: {key} belongs to no linear site of this backbone")
        used[path] = by_path[path]
    lora = METHODS["lora"](
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
        sites=tuple(site.name for site in used.values()),
    )
    model = AdaptedModel(base, sites, {name: lora})
    with torch.no_grad():
        for path, site in used.items():
            part: Any = model.at(name, site)
            part.a.copy_(stored[f"{PREFIX}{path}.lora_A.weight"])
            part.b.copy_(stored[f"{PREFIX}{path}.lora_B.weight"])
    return model
