"""whisper.cpp's file, read back byte by byte."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.errors import ConfigError
from speech_peft.export.ggml import write_ggml

F32, F16, Q5_0, Q8_0 = 0, 1, 6, 8


@pytest.fixture(scope="module")
def whisper():
    return tiny("whisper")


def parsed(path: Path) -> tuple[list[int], list[bytes], dict[str, tuple[int, torch.Tensor]]]:
    """The sizes, the texts of the tokens, and each tensor with its type."""
    with open(path, "rb") as stream:

        def numbers(count: int) -> list[int]:
            return list(struct.unpack(f"<{count}i", stream.read(4 * count)))

        sizes = numbers(12)
        bands, bins = numbers(2)
        stream.read(4 * bands * bins)
        texts = [stream.read(numbers(1)[0]) for _ in range(numbers(1)[0])]
        found = {}
        while head := stream.read(12):
            rank, length, kind = struct.unpack("<3i", head)
            shape = numbers(rank)[::-1]
            name = stream.read(length).decode()
            found[name] = kind, torch.from_numpy(values(stream, kind, int(np.prod(shape)))).view(shape)
    return sizes, texts, found


def values(stream, kind: int, count: int) -> np.ndarray:
    if kind in (F32, F16):
        width = 4 if kind == F32 else 2
        return np.frombuffer(stream.read(width * count), f"<f{width}").astype(np.float32)
    width = 34 if kind == Q8_0 else 22
    blocks = np.frombuffer(stream.read(width * count // 32), np.uint8).reshape(-1, width)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    if kind == Q8_0:
        return (scale * blocks[:, 2:].view(np.int8)).reshape(-1)
    fifth = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little")
    low = np.concatenate([blocks[:, 6:] & 15, blocks[:, 6:] >> 4], axis=1)
    return (scale * ((low | fifth << 4).astype(np.float32) - 16)).reshape(-1)


def test_every_weight_is_there_once_and_matrices_are_half_floats(whisper, tmp_path):
    write_ggml(whisper.module, whisper, tmp_path / "out")
    sizes, texts, found = parsed(tmp_path / "out/ggml-model.bin")
    config = whisper.module.config
    assert sizes[0] == 0x67676D6C
    assert sizes[1:] == [config.vocab_size, 1500, 32, 2, 2, 448, 32, 2, 2, 80, 1]
    assert len(texts) == whisper.generation.eot
    assert b"".join(sorted(texts)) == bytes(range(256))
    state = whisper.module.model.state_dict()
    assert len(found) == len(state)
    pairs = {
        "encoder.blocks.1.attn.query.weight": "encoder.layers.1.self_attn.q_proj.weight",
        "encoder.ln_post.bias": "encoder.layer_norm.bias",
        "encoder.conv2.weight": "encoder.conv2.weight",
        "decoder.blocks.0.cross_attn.key.weight": "decoder.layers.0.encoder_attn.k_proj.weight",
        "decoder.blocks.1.mlp.2.bias": "decoder.layers.1.fc2.bias",
        "decoder.token_embedding.weight": "decoder.embed_tokens.weight",
        "decoder.positional_embedding": "decoder.embed_positions.weight",
    }
    for theirs, ours in pairs.items():
        kind, value = found[theirs]
        half = value.dim() > 1 and "positional" not in theirs
        assert kind == (F16 if half else F32), theirs
        assert value.equal(state[ours].half().float() if half else state[ours]), theirs
    assert found["encoder.conv1.bias"][1].shape == (32, 1)


@pytest.mark.parametrize(("dtype", "kind", "steps"), [("q8_0", Q8_0, 127), ("q5_0", Q5_0, 16)])
def test_quantised_matrices_are_off_by_at_most_half_a_step_of_their_block(
    dtype, kind, steps, whisper, tmp_path
):
    write_ggml(whisper.module, whisper, tmp_path / "out", dtype)
    _, _, found = parsed(tmp_path / "out/ggml-model.bin")
    quantised = {name: value for name, (its, value) in found.items() if its == kind}
    assert len(quantised) == 2 * 6 + 2 * 10 + 1
    weight = whisper.module.model.decoder.layers[0].fc1.weight.reshape(-1, 32)
    value = quantised["decoder.blocks.0.mlp.0.weight"].view(-1, 32)
    step = weight.abs().amax(1, keepdim=True) / steps
    # Five bits reach from -16 to 15, so one side is cut by a step; scales are rounded to half floats.
    most = 0.51 if dtype == "q8_0" else 1.02
    assert ((value - weight).abs() <= most * step).all()
    assert (value - weight).abs().mean() < 0.3 * step.mean()


def test_a_bias_of_keys_that_an_adapter_brought_is_left_out(tmp_path):
    whisper = tiny("whisper")
    projection = whisper.module.model.encoder.layers[0].self_attn.k_proj
    projection.register_parameter("bias", torch.nn.Parameter(torch.ones(32)))
    write_ggml(whisper.module, whisper, tmp_path / "out")
    assert "encoder.blocks.0.attn.key.bias" not in parsed(tmp_path / "out/ggml-model.bin")[2]


def test_another_type_and_rows_without_whole_blocks_are_refused_and_leave_nothing(whisper, tmp_path):
    with pytest.raises(ConfigError, match="'float32' is none of whisper"):
        write_ggml(whisper.module, whisper, tmp_path / "out", "float32")
    narrow = tiny("whisper")
    narrow.module.model.encoder.layers[0].fc1 = torch.nn.Linear(20, 8)
    with pytest.raises(ConfigError, match=r"mlp\.0\.weight has rows of 20"):
        write_ggml(narrow.module, narrow, tmp_path / "out", "q8_0")
    assert not list(tmp_path.iterdir())
