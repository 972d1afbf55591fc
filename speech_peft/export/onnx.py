"""A Whisper as two graphs for onnxruntime: what hears, and what writes a token after another from a cache.

    encoder.onnx    features (b m f) -> states (b t d), cross_keys and cross_values (l b h t c), t = f / 2
    decoder.onnx    tokens (b n), past_keys and past_values (l b h p c), cross_keys, cross_values
                    -> logits (b n v), keys and values (l b h p+n c)

Clips, frames, tokens and what lies in the cache may be as many as they like: the prompt is n tokens on a
cache of p = 0, each further token n = 1 on what came out before. The frames are those of the audio, or of
30 s. The blocks are written out below, as transformers' own change with each release, and graphs with them.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.export import Dim

from ..backbones.whisper import Whisper
from ..errors import ConfigError
from ..files.atomic import atomic_folder
from .reading import Reading
from .whisper_files import complete, write_side_files

DTYPES = ("float32",)
INSTALL = "pip install 'speech_peft[onnx]'"


class Hears(nn.Module):
    """Features to states, and to the keys and values that the decoder's blocks make of them, once."""

    def __init__(self, model: Any):
        super().__init__()
        self.encoder, self.decoder = model.model.encoder, model.model.decoder

    def forward(self, features: Float[Tensor, "b m f"]) -> tuple[Tensor, Tensor, Tensor]:
        encoder = self.encoder
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(features)))).permute(0, 2, 1)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        for block in encoder.layers:
            q, k, v = _projected(block.self_attn, block.self_attn_layer_norm(x))
            x = _fed(block, x + _attended(block.self_attn, q, k, v))
        x = encoder.layer_norm(x)
        cross = [block.encoder_attn for block in self.decoder.layers]
        keys = torch.stack([_heads(attention, attention.k_proj(x)) for attention in cross])
        return x, keys, torch.stack([_heads(attention, attention.v_proj(x)) for attention in cross])


class Writes(nn.Module):
    """Tokens to the logits of what follows each, with what came before them in a cache."""

    def __init__(self, model: Any):
        super().__init__()
        self.decoder, self.projection = model.model.decoder, model.proj_out

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        past_keys: Float[Tensor, "l b h p c"],
        past_values: Float[Tensor, "l b h p c"],
        cross_keys: Float[Tensor, "l b h t c"],
        cross_values: Float[Tensor, "l b h t c"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        decoder, past, new = self.decoder, past_keys.shape[3], tokens.shape[1]
        x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[past : past + new]
        earlier = torch.arange(past + new)[None] <= past + torch.arange(new)[:, None]
        keys, values = [], []
        for i, block in enumerate(decoder.layers):
            q, k, v = _projected(block.self_attn, block.self_attn_layer_norm(x))
            keys.append(torch.cat([past_keys[i], k], 2))
            values.append(torch.cat([past_values[i], v], 2))
            x = x + _attended(block.self_attn, q, keys[-1], values[-1], earlier)
            cross = block.encoder_attn
            q = _heads(cross, cross.q_proj(block.encoder_attn_layer_norm(x)))
            x = _fed(block, x + _attended(cross, q, cross_keys[i], cross_values[i]))
        return self.projection(decoder.layer_norm(x)), torch.stack(keys), torch.stack(values)


def _projected(attention: Any, x: Tensor) -> tuple[Tensor, ...]:
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return tuple(_heads(attention, projection(x)) for projection in projections)


def _heads(attention: Any, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t c"]:
    return x.unflatten(2, (attention.num_heads, attention.head_dim)).transpose(1, 2)


def _attended(attention: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return attention.out_proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


def _fed(block: Any, x: Tensor) -> Tensor:
    return x + block.fc2(F.gelu(block.fc1(block.final_layer_norm(x))))


def write_onnx(model: Any, backbone: Whisper, folder: str | os.PathLike[str], dtype: str = "float32") -> Path:
    """Write a stock WhisperForConditionalGeneration as two graphs; the folder appears when it is complete.

    `backbone` gives the tokens; `model` is the one in it, merged, and stays as it is. Raises ConfigError for
    another dtype, without the package onnxscript, and where the folder is not empty.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is none of ONNX's here: {', '.join(DTYPES)}")
    if missing := [name for name in ("onnx", "onnxscript") if util.find_spec(name) is None]:
        raise ConfigError(f"to write ONNX, {' and '.join(missing)} must be installed: {INSTALL}")
    try:
        with atomic_folder(folder) as half:
            _export(_in_float32(model), half)
            write_side_files(backbone, half)
            model.config.save_pretrained(half)
            settings = deepcopy(model.generation_config)
            complete(settings, backbone.generation)
            settings.save_pretrained(half)
    except OSError as error:
        raise ConfigError(f"{os.fspath(folder)} cannot be written: {error.strerror or error}") from None
    return Path(folder)


def hear(folder: Path, reading: Reading) -> Float32[ndarray, "n v"]:
    """The logits of such a folder by onnxruntime on the CPU: the prompt at once, then token after token."""
    runtime = import_module("onnxruntime")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    hears, writes = (
        runtime.InferenceSession(folder / name, settings, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    )
    _, cross_keys, cross_values = hears.run(None, {"features": reading.features})
    keys = values = cross_keys[:, :, :, :0]
    rows, new = [], list(reading.prompt)
    for token in reading.tokens:
        given = {"tokens": np.array([new]), "past_keys": keys, "past_values": values}
        given |= {"cross_keys": cross_keys, "cross_values": cross_values}
        logits, keys, values = writes.run(None, given)
        rows.append(logits[0, -1])
        new = [token]
    return np.stack(rows)


def _in_float32(model: Any) -> Any:
    """Itself where it is; a copy of another type, as weights are shared with the base."""
    return model if model.dtype == torch.float32 else deepcopy(model).float()


def _export(model: Any, folder: Path) -> None:
    config, most = model.config, model.config.max_target_positions
    batch, frames = Dim("batch", min=1), Dim("frames", min=2, max=2 * config.max_source_positions)
    new, past = Dim("new", min=1, max=most), Dim("past", min=0, max=most)
    states = Dim("states", min=1, max=config.max_source_positions)
    features = torch.zeros(2, config.num_mel_bins, 100)
    with torch.no_grad():
        _, keys, values = Hears(model)(features)
    _graph(
        Hears(model),
        {"features": (features, {0: batch, 2: frames})},
        ("states", "cross_keys", "cross_values"),
        folder / "encoder.onnx",
    )
    # No axis is 0 or 1 long here: those lengths would be taken for ever so.
    cached, cross = {1: batch, 3: past}, {1: batch, 3: states}
    _graph(
        Writes(model),
        {
            "tokens": (torch.zeros(2, 4, dtype=torch.long), {0: batch, 1: new}),
            "past_keys": (keys[:, :, :, :3].clone(), cached),
            "past_values": (values[:, :, :, :3].clone(), cached),
            "cross_keys": (keys, cross),
            "cross_values": (values, cross),
        },
        ("logits", "keys", "values"),
        folder / "decoder.onnx",
    )


def _graph(
    part: nn.Module, inputs: dict[str, tuple[Tensor, Any]], outputs: Sequence[str], path: Path
) -> None:
    """One graph beside its weights; what torch tells about its own making of it is not for our users."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # torchvision, which nothing here needs, is missed
    try:
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                part.eval(),
                tuple(example for example, _ in inputs.values()),
                path,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes={name: shape for name, (_, shape) in inputs.items()},
                dynamo=True,
                verbose=False,
            )
    finally:
        log.setLevel(level)
