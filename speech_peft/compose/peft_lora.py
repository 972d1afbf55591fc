"""LoRA in PEFT's own two files, written and read with a difference of exactly nothing.

    adapter_config.json         r, lora_alpha, target_modules as a regular expression of full paths
    adapter_model.safetensors   base_model.model.<path>.lora_A.weight, ….lora_B.weight, ….lora_B.bias

Any adapter that can say what LoRA it amounts to (`Adapter.to_lora`) can be written; what is read is a `lora`.

The file names differ from ours, so the two formats cannot be mistaken for each other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.adapter import NotMergeable
from ..core.low_rank import LowRank, nearest
from ..core.model import AdaptedModel
from ..core.site import Site
from ..errors import ConfigError
from ..files import json_text, tensors
from ..registry import METHODS
from .peft_settings import FILE, PeftLora, read_settings
from .stated import at_layer, stated

PREFIX = "base_model.model."


def export_peft(
    model: AdaptedModel,
    name: str,
    folder: str | Path,
    base_id: str,
    changes: Sequence[LowRank] | None = None,
) -> Path:
    """Write adapter `name`, a LoRA or what amounts to one, as a folder that stock PEFT loads.

    `changes` are written in its stead, one for each of its sites, for instance those nearest to it. Raises
    ConfigError, naming the site, for an adapter that is no low-rank change of single layers.
    """
    if not model.sites[name]:
        raise ConfigError(
            f"adapter {name!r} is a {model.methods[name].name}, at no site: there is nothing to write into "
            "PEFT's files"
        )
    changes = _alike(changes or [_stated(model, name, site) for site in model.sites[name]])
    with_bias = any(change.bias is not None for change in changes)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Tensor] = {}
    for site, change in zip(model.sites[name], changes, strict=True):
        parts[f"{PREFIX}{site.exit}.lora_A.weight"] = change.a
        parts[f"{PREFIX}{site.exit}.lora_B.weight"] = change.b
        if with_bias:  # one setting for all layers, so a layer without one gets zeros
            bias = change.b.new_zeros(len(change.b)) if change.bias is None else change.bias
            parts[f"{PREFIX}{site.exit}.lora_B.bias"] = bias
    paths = "|".join(re.escape(site.exit) for site in model.sites[name])
    config = {
        "peft_type": "LORA",
        # No task type: PEFT would call the model with input_ids, which no speech model takes.
        "task_type": None,
        "base_model_name_or_path": base_id,
        "r": changes[0].rank,
        "lora_alpha": changes[0].alpha,
        "lora_dropout": changes[0].dropout,
        "lora_bias": with_bias,
        "target_modules": f"({paths})",
        "bias": "none",
        "inference_mode": True,
    }
    tensors.write(folder / "adapter_model.safetensors", parts, {"format": "pt"})
    (folder / FILE).write_text(json_text.write(config, indent=2) + "\n", encoding="utf-8")
    return folder


def nearest_loras(model: AdaptedModel, name: str, rank: int) -> list[tuple[LowRank, float]]:
    """For each site, the LoRA of this rank nearest to what the adapter does, and its relative error.

    For adapters that merge and are no LoRA themselves. A bias that they change is kept as it is. Raises
    ConfigError, naming the site, where an adapter is no change of one weight.
    """
    return [_nearest(model, name, site, rank) for site in model.sites[name]]


def _nearest(model: AdaptedModel, name: str, site: Site, rank: int) -> tuple[LowRank, float]:
    try:
        part, weight, bias = at_layer(model, name, site)
        merged, shifted = part.merged(weight, bias)
    except NotMergeable as refused:
        raise _no_lora(model, name, site, refused) from None
    change, error = nearest(merged - weight, rank)
    if shifted is not None and shifted is not bias:
        change = replace(change, bias=shifted if bias is None else shifted - bias)
    return change.to(model.at(name, site).dtype or torch.float32), error


def _stated(model: AdaptedModel, name: str, site: Site) -> LowRank:
    try:
        return stated(model, name, site)
    except NotMergeable as refused:
        raise _no_lora(model, name, site, refused) from None


def _no_lora(model: AdaptedModel, name: str, site: Site, refused: NotMergeable) -> ConfigError:
    return ConfigError(
        f"adapter {name!r} is a {model.methods[name].name}, and at {site.name} {refused}; "
        "PEFT's files can hold only what amounts to a lora"
    )


def _alike(changes: Sequence[LowRank]) -> list[LowRank]:
    """All with one rank and one scale, as PEFT's configuration has one of each; as they are if they agree."""
    if len({(change.rank, change.alpha) for change in changes}) == 1:
        return list(changes)
    rank = max(change.rank for change in changes)
    return [change.padded(rank) for change in changes]


def import_peft(folder: str | Path, base: torch.nn.Module, sites: Sequence[Site], name: str) -> AdaptedModel:
    """Attach a PEFT LoRA folder to `base` as adapter `name`.

    Raises ConfigError naming the setting or the module that has no counterpart here.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    path = folder / "adapter_model.safetensors"
    used = _sites_of(path, tensors.shapes(path), sites, settings)
    lora = METHODS["lora"](
        rank=settings.r,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        bias=settings.lora_bias,
        sites=tuple(site.name for site in used.values()),
    )
    stored = tensors.read(path)
    model = AdaptedModel(base, sites, {name: lora})
    with torch.no_grad():
        for at, site in used.items():
            part: Any = model.at(name, site)
            part.a.copy_(stored[f"{PREFIX}{at}.lora_A.weight"])
            part.b.copy_(stored[f"{PREFIX}{at}.lora_B.weight"])
            if part.bias is not None:
                part.bias.copy_(stored[f"{PREFIX}{at}.lora_B.bias"])
    return model


def _sites_of(
    path: Path, there: Mapping[str, tensors.Shape], sites: Sequence[Site], settings: PeftLora
) -> dict[str, Site]:
    """The site of every layer in a file; raises ConfigError unless each has its tensors and no others."""
    by_path = {site.exit: site for site in sites if site.kind == "linear"}
    used: dict[str, Site] = {}
    for key in there:
        layer = key.removeprefix(PREFIX).rsplit(".lora_", 1)[0]
        if layer not in by_path:
            raise ConfigError(f"{path}: {key} belongs to no linear site of this backbone")
        used[layer] = by_path[layer]
    if not used:
        raise ConfigError(f"{path} holds no tensors")
    wanted: dict[str, tuple[int, ...]] = {}
    for layer, site in used.items():
        wanted[f"{PREFIX}{layer}.lora_A.weight"] = (settings.r, site.dim_in)
        wanted[f"{PREFIX}{layer}.lora_B.weight"] = (site.dim_out, settings.r)
        if settings.lora_bias:
            wanted[f"{PREFIX}{layer}.lora_B.bias"] = (site.dim_out,)
    for key in sorted(wanted.keys() ^ there.keys()):
        what = "lacks" if key in wanted else "holds, besides what a LoRA has,"
        raise ConfigError(f"{path} {what} {key}")
    for key, shape in wanted.items():
        if there[key].shape != shape or not there[key].dtype.is_floating_point:
            raise ConfigError(f"{path}: {key} is {there[key]}, expected floats {shape}")
    return used
