"""Whisper weights in CTranslate2's form (faster-whisper folders), written once as a Hugging Face folder.

model.bin, little endian: version, spec name, revision, number of variables; each variable is its name, rank,
dimensions, type and bytes; then pairs (alias, variable). A string is its length, its bytes and a zero.

The map of names is all there is to the conversion: query, key and value are fused in one matrix (key and
value in cross attention), Whisper's key has no bias, and the output projection is the tied embedding.
"""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ...errors import ConfigError
from ...files import json_text, tensors
from ..whisper_tokens import LANGUAGE

MOST_TOKENIZER_BYTES = 64_000_000
"""Of a tokenizer.json; those of multilingual models have 4 MB."""
_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
_VERSIONS = range(3, 7)  # of the layout written here; 3 brought the alias table's present form
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "preprocessor_config.json")

# CTranslate2 -> Hugging Face, inside one block; the matrices of a fused one in their order.
_SELF = {
    "linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "linear_1": ("self_attn.out_proj",),
}
_CROSS = {
    "linear_0": ("encoder_attn.q_proj",),
    "linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "linear_2": ("encoder_attn.out_proj",),
}
_PARTS = {
    "self_attention": {"layer_norm": ("self_attn_layer_norm",), **_SELF},
    "attention": {"layer_norm": ("encoder_attn_layer_norm",), **_CROSS},
    "ffn": {"layer_norm": ("final_layer_norm",), "linear_0": ("fc1",), "linear_1": ("fc2",)},
}
_PLAIN = {
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
}
_SUFFIX = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


def read_variables(path: Path) -> dict[str, Tensor]:
    """Every variable of a model.bin; quantised matrices come out as floats."""
    with open(path, "rb") as stream:
        try:
            version = _number(stream, "I")
            name = _string(stream)
            if version not in _VERSIONS or name != "WhisperSpec":
                raise ConfigError(
                    f"weights: {path} is a CTranslate2 {name or 'model'} of layout {version}; "
                    f"what can be read is WhisperSpec of layouts {_VERSIONS[0]} to {_VERSIONS[-1]}."
                )
            _number(stream, "I")  # revision of the spec: the names have not changed
            variables = dict(_variable(stream) for _ in range(_number(stream, "I")))
            for _ in range(_number(stream, "I")):  # what equals another is stored once, zeros for instance
                _alias(stream, variables)
        except (struct.error, UnicodeDecodeError) as error:
            raise ConfigError(
                f"weights: {path} ends too early or is no CTranslate2 model: {error}"
            ) from error
    return {name: _dequantised(name, variables) for name in variables if not name.endswith("_scale")}


def hugging_face_state(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of WhisperForConditionalGeneration, in float32."""
    state: dict[str, Tensor] = {}
    for name, value in variables.items():
        if value.dim():  # scalars and lists say how to run it; the shapes say that already
            for key, part in _renamed(name, value):
                state[f"model.{key}"] = part.float().contiguous()
    return state


def _renamed(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    side, _, rest = name.partition("/")
    if rest in _PLAIN:
        yield f"{side}.{_PLAIN[rest]}", value
    elif rest.startswith("conv"):
        yield f"{side}.{rest.replace('/', '.')}", value
    elif rest.startswith("layer_"):
        block, part, layer, leaf = rest.split("/")
        targets = _PARTS[part][layer]
        for target, matrix in zip(targets, value.chunk(len(targets)), strict=True):
            if not (target.endswith("k_proj") and leaf == "bias"):
                yield f"{side}.layers.{block.removeprefix('layer_')}.{target}.{_SUFFIX[leaf]}", matrix
    # what remains ("decoder/alignment_heads" and the like) is in config.json too


def _dequantised(name: str, variables: dict[str, Tensor]) -> Tensor:
    value, scale = variables[name], variables.get(f"{name}_scale")
    if scale is None:
        return value
    return value.float() / scale.float().view(-1, *[1] * (value.dim() - 1))


def _number(stream: BinaryIO, form: str) -> int:
    return struct.unpack(f"<{form}", stream.read(struct.calcsize(f"<{form}")))[0]


def _string(stream: BinaryIO) -> str:
    return stream.read(_number(stream, "H"))[:-1].decode()


def _variable(stream: BinaryIO) -> tuple[str, Tensor]:
    name = _string(stream)
    shape = [_number(stream, "I") for _ in range(_number(stream, "B"))]
    kind, size = _number(stream, "B"), _number(stream, "I")
    content = bytearray(stream.read(size))
    if len(content) < size or kind >= len(_TYPES):
        raise ConfigError(
            f"weights: {stream.name}: variable {name} is cut short or of an unknown type ({kind})."
        )
    return name, torch.frombuffer(content, dtype=_TYPES[kind]).reshape(shape)


def _alias(stream: BinaryIO, variables: dict[str, Tensor]) -> None:
    name, same = _string(stream), _string(stream)
    for end in ("", "_scale"):
        if f"{same}{end}" in variables:
            variables[f"{name}{end}"] = variables[f"{same}{end}"]


def write(target: Path, source: Path, variables: dict[str, Tensor]) -> None:
    """The Hugging Face folder `target`, of the variables and what lies beside them in `source`."""
    from transformers import GenerationConfig

    path = source / "config.json"
    hints = json_text.read_object(path) if path.is_file() else {}
    if not (source / "tokenizer.json").is_file():
        raise ConfigError(
            f"weights: {source} has no tokenizer.json; copy the one of the model it was made from."
        )
    state = hugging_face_state(variables)
    heads = {side: int(variables[f"{side}/num_heads"]) for side in ("encoder", "decoder")}
    tensors.write(target / "model.safetensors", state, {"format": "pt"})
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    ids = _special_ids(target / "tokenizer.json")
    _config(state, heads, ids).save_pretrained(target)
    GenerationConfig(**_generation(ids, hints)).save_pretrained(target)


def _special_ids(tokenizer: Path) -> dict[str, int]:
    added = json_text.read_object(tokenizer, MOST_TOKENIZER_BYTES).get("added_tokens")
    try:
        return {str(token["content"]): int(token["id"]) for token in added or ()}
    except (TypeError, KeyError, ValueError):
        raise ConfigError(f"weights: {tokenizer}: added_tokens are not tokens with their ids") from None


def _config(state: dict[str, Tensor], heads: dict[str, int], ids: dict[str, int]) -> Any:
    """The dimensions, read off the weights."""
    from transformers import WhisperConfig

    vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
    blocks = {
        side: len({key.split(".")[3] for key in state if key.startswith(f"model.{side}.layers.")})
        for side in ("encoder", "decoder")
    }
    end = ids["<|endoftext|>"]
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=state["model.encoder.conv1.weight"].shape[1],
        max_source_positions=state["model.encoder.embed_positions.weight"].shape[0],
        max_target_positions=state["model.decoder.embed_positions.weight"].shape[0],
        encoder_layers=blocks["encoder"],
        decoder_layers=blocks["decoder"],
        encoder_attention_heads=heads["encoder"],
        decoder_attention_heads=heads["decoder"],
        encoder_ffn_dim=state["model.encoder.layers.0.fc1.weight"].shape[0],
        decoder_ffn_dim=state["model.decoder.layers.0.fc1.weight"].shape[0],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        architectures=["WhisperForConditionalGeneration"],
    )


def _generation(ids: dict[str, int], hints: dict[str, Any]) -> dict[str, Any]:
    """What clean decoding and word times need; ids come from the tokenizer, as some `lang_ids` are wrong."""
    end = ids["<|endoftext|>"]
    multilingual = ids["<|startoftranscript|>"] != 50257 and "<|translate|>" in ids
    shared = {
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "suppress_tokens": hints.get("suppress_ids", []),
        "begin_suppress_tokens": hints.get("suppress_ids_begin", [220, end]),
        "alignment_heads": hints.get("alignment_heads", []),
        "is_multilingual": multilingual,
        "max_length": 448,
    }
    if not multilingual:
        return shared
    codes = {text: i for text, i in ids.items() if LANGUAGE.fullmatch(text)}
    return {
        **shared,
        "lang_to_id": codes,
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    }
