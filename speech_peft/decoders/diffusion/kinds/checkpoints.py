"""Checkpoints of SMDM and Whisfusion, by their own names, into a `Bridged` of the same shape.

    lm_head  transformer.wte  transformer.ln_f
    transformer.h.N.  norm_1 attn.attn attn.proj  norm_cross cross_attn.{q_proj,kv_proj,proj}
                      norm_2 mlp.swiglu.w{1,2,3}

`attn.attn` holds query, key and value of one head behind each other, then those of the next. SMDM's model has
no bridge, which then stays as it was made; training may have saved it inside another ("model.", "module.").
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ....errors import ConfigError
from ....files import tensors
from .bridged import Bridged

_TOP = {
    "transformer.wte.weight": "embed.weight",
    "transformer.ln_f.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
_BLOCK = {
    "norm_1.weight": "norm_self.weight",
    "attn.attn.weight": "qkv.weight",
    "attn.proj.weight": "out.weight",
    "norm_cross.weight": "norm_cross.weight",
    "cross_attn.q_proj.weight": "cross_q.weight",
    "cross_attn.kv_proj.weight": "cross_kv.weight",
    "cross_attn.proj.weight": "cross_out.weight",
    "norm_2.weight": "norm_ffn.weight",
    "mlp.swiglu.w1.weight": "gate.weight",
    "mlp.swiglu.w2.weight": "up.weight",
    "mlp.swiglu.w3.weight": "down.weight",
}
_BRIDGE = re.compile(r"blocks\.\d+\.(norm_cross|cross_)")
_WRAPPED = ("_forward_module.", "module.", "model.")


def load_checkpoint(decoder: Bridged, path: str | Path) -> bool:
    """Fills a decoder from a .safetensors or .pt file; whether the bridge was in it.

    Raises ConfigError naming what is missing, unknown or of another shape.
    """
    found = renamed(_read(Path(path)), decoder.heads)
    own = decoder.state_dict()
    missing = sorted(key for key in own.keys() - found.keys() if not _BRIDGE.match(key))
    unknown = sorted(found.keys() - own.keys())
    if missing or unknown:
        raise ConfigError(
            f"{path}: this is no checkpoint of {len(decoder.blocks)} blocks: "
            f"missing {', '.join(missing[:3]) or 'nothing'}; not known {', '.join(unknown[:3]) or 'nothing'}"
        )
    for key, value in found.items():
        if value.shape != own[key].shape:
            raise ConfigError(
                f"{path}: {key} is {tuple(value.shape)}, and this decoder's {tuple(own[key].shape)}; "
                "give the recipe its width, layers, heads, inner width and tokenizer"
            )
    with torch.no_grad():
        for key, value in found.items():
            own[key].copy_(value)
    return any(_BRIDGE.match(key) for key in found)


def renamed(given: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Their names and order of rows as ours; what is not theirs keeps its name."""
    found: dict[str, Tensor] = {}
    for key, value in given.items():
        for prefix in _WRAPPED:
            key = key.removeprefix(prefix)
        if key in _TOP:
            found[_TOP[key]] = value
            continue
        match = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)", key)
        if match and match[2] in _BLOCK:
            name = _BLOCK[match[2]]
            found[f"blocks.{match[1]}.{name}"] = _by_kind(value, heads) if name == "qkv.weight" else value
        else:
            found[key] = value
    return found


def _by_kind(fused: Tensor, heads: int) -> Tensor:
    """Rows of [q k v] head by head, as all q, all k, all v."""
    return fused.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"task.decoder.weights: there is no file {path}")
    if path.suffix == ".safetensors":
        return tensors.read(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle raises
        raise ConfigError(f"task.decoder.weights: {path} could not be read: {error}") from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
