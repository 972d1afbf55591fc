"""A Whisper as one file for whisper.cpp, in f16, q8_0 or q5_0.

Little endian: magic, eleven sizes, the mel filters, the texts of all tokens below <|endoftext|> as bytes,
then the tensors: rank, length of the name, type, sizes from the last axis to the first, name, numbers. They
go out one by one, so writing takes the memory of the largest. whisper.cpp counts on it that vectors,
positions and the biases of convolutions are f32, and that convolutions are f16: files all in f32 load, and
stop the process at the first clip. What was trained to hear at the length of the audio is run with
`audio_ctx`, one state for 20 ms.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..backbones.whisper import Whisper
from ..errors import ConfigError
from ..files.atomic import atomic_folder

DTYPES = ("float16", "q8_0", "q5_0")
NAME = "ggml-model.bin"
_MAGIC = 0x67676D6C
_BLOCK = 32  # numbers of a row that share a scale
# What the header says of the file, and each tensor of itself; the former counts the layout's version, 2, in
# thousands where matrices are quantised.
_FILE = {"float16": 1, "q8_0": 2007, "q5_0": 2008}
_TENSOR = {"float32": 0, "float16": 1, "q8_0": 8, "q5_0": 6}

# Hugging Face -> whisper.cpp, inside one block.
_PARTS = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
_PLAIN = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "encoder.layer_norm.weight": "encoder.ln_post.weight",
    "encoder.layer_norm.bias": "encoder.ln_post.bias",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "decoder.layer_norm.weight": "decoder.ln.weight",
    "decoder.layer_norm.bias": "decoder.ln.bias",
}


def write_ggml(model: Any, backbone: Whisper, folder: str | os.PathLike[str], dtype: str = "float16") -> Path:
    """Write a stock WhisperForConditionalGeneration as a file in a folder, which appears when it is complete.

    `backbone` gives the tokens; `model` is the one in it, merged, and stays as it is. Raises ConfigError for
    another dtype, for rows that have no whole number of blocks, and where the folder is not empty.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is none of whisper.cpp's here: {', '.join(DTYPES)}")
    try:
        with atomic_folder(folder) as half, open(half / NAME, "wb") as stream:
            _head(stream, model.config, dtype)
            _filters(stream, model.config.num_mel_bins)
            _tokens(stream, backbone)
            for name, value in _renamed(model):
                _tensor(stream, name, value.detach().cpu().float(), dtype)
    except OSError as error:
        raise ConfigError(f"{os.fspath(folder)} cannot be written: {error.strerror or error}") from None
    return Path(folder)


def _head(stream: BinaryIO, config: Any, dtype: str) -> None:
    sizes = (
        config.vocab_size,
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        config.max_target_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
    )
    stream.write(struct.pack("<12i", _MAGIC, *sizes, _FILE[dtype]))


def _filters(stream: BinaryIO, bins: int) -> None:
    from transformers import WhisperFeatureExtractor

    filters = np.asarray(WhisperFeatureExtractor(feature_size=bins).mel_filters, dtype="<f4").T
    stream.write(struct.pack("<2i", *filters.shape) + filters.tobytes())


def _tokens(stream: BinaryIO, backbone: Whisper) -> None:
    """The texts below <|endoftext|>, in their order; whisper.cpp names what follows itself."""
    texts = {number: text for text, number in backbone.tokenizer.get_vocab().items()}
    end, byte_of = backbone.generation.eot, _bytes_of_characters()
    stream.write(struct.pack("<i", end))
    for number in range(end):
        text = bytes(byte_of[character] for character in texts.get(number, ""))
        stream.write(struct.pack("<i", len(text)) + text)


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's alphabet: bytes that print are themselves, the others follow from U+0100 on in their order."""
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _renamed(model: Any) -> Iterator[tuple[str, Tensor]]:
    for key, value in model.model.state_dict().items():
        if key in _PLAIN:
            yield _PLAIN[key], value
        elif ".conv" in key:
            yield key, value.unsqueeze(1) if key.endswith("bias") else value
        else:
            side, _, block, *part, leaf = key.split(".")
            name = _PARTS[".".join(part)]
            # A bias of keys adds the same to all scores of a query, which softmax takes away again. Neither
            # whisper.cpp nor stock Whisper has one, but an adapter may have brought it.
            if not (name.endswith("key") and leaf == "bias"):
                yield f"{side}.blocks.{block}.{name}.{leaf}", value


def _tensor(stream: BinaryIO, name: str, value: Tensor, dtype: str) -> None:
    kind = dtype
    if value.dim() == 1 or name.endswith(("positional_embedding", "conv1.bias", "conv2.bias")):
        kind = "float32"
    elif value.dim() == 3:
        kind = "float16"
    text = name.encode()
    stream.write(struct.pack("<3i", value.dim(), len(text), _TENSOR[kind]))
    stream.write(struct.pack(f"<{value.dim()}i", *reversed(value.shape)) + text)
    stream.write(_WRITERS[kind](name, value.contiguous().numpy()))


def _q8_0(name: str, value: NDArray[np.float32]) -> bytes:
    """Blocks of 32: a scale in f16, then 8 bits a number."""
    blocks = _in_blocks(name, value)
    scale, whole = _divided(blocks, np.abs(blocks).max(1, keepdims=True) / 127.0)
    signed = np.clip(np.rint(whole), -127, 127).astype(np.int8)
    return np.concatenate([scale.view(np.int8), signed], axis=1).tobytes()


def _q5_0(name: str, value: NDArray[np.float32]) -> bytes:
    """Blocks of 32: a scale in f16, the fifth bits, then four bits a number, low ones first."""
    blocks = _in_blocks(name, value)
    furthest = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
    scale, whole = _divided(blocks, furthest / -16.0)
    five = np.clip(whole + 16.5, 0, 31).astype(np.uint32)
    fifth = ((five >> 4) << np.arange(_BLOCK, dtype=np.uint32)).sum(1, dtype=np.uint32).astype("<u4")
    low = ((five[:, :16] & 15) | ((five[:, 16:] & 15) << 4)).astype(np.uint8)
    return np.concatenate([scale.view(np.uint8), fifth[:, None].view(np.uint8), low], axis=1).tobytes()


def _divided(
    blocks: NDArray[np.float32], scale: NDArray[np.float32]
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Scales as they are stored, and the blocks over them; zeros where a block has nothing but zeros."""
    stored = scale.astype("<f2")
    return stored, np.divide(blocks, stored, out=np.zeros_like(blocks), where=stored != 0)


def _in_blocks(name: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
    if value.shape[-1] % _BLOCK:
        raise ConfigError(
            f"{name} has rows of {value.shape[-1]}, and whisper.cpp quantises {_BLOCK} together; give float16"
        )
    return value.reshape(-1, _BLOCK)


_WRITERS = {
    "float32": lambda _, value: value.astype("<f4").tobytes(),
    "float16": lambda _, value: value.astype("<f2").tobytes(),
    "q8_0": _q8_0,
    "q5_0": _q5_0,
}
