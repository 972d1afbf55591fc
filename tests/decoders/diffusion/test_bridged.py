"""A text model behind a bridge: what it sees, what it reads of published files, when words were said."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from speech_peft.backbones.families import tiny
from speech_peft.decoders.ctc import Characters
from speech_peft.decoders.diffusion.kinds.bridged import Bridged, rotated, rotation
from speech_peft.decoders.diffusion.kinds.checkpoints import load_checkpoint
from speech_peft.decoders.diffusion.kinds.forms import build
from speech_peft.decoders.diffusion.kinds.texts import ByCharacter, texts
from speech_peft.decoders.diffusion.reader import MaskedReader
from speech_peft.decoders.diffusion.times import placed, words_of
from speech_peft.errors import ConfigError
from tests.decoders.diffusion.fakes import Reads, clips

DIM, WIDTH, HEADS, LAYERS, WORDS = 12, 16, 2, 2, 9


def decoder(**changed) -> Bridged:
    shape = {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "inner": 24, "room": 32} | changed
    return Bridged(DIM, ByCharacter(Characters("abcdefg ")), **shape).eval()


@torch.no_grad()
def test_texts_of_a_clip_share_its_memory_and_know_nothing_of_each_other_or_of_padding():
    model = decoder()
    tokens, masked = torch.randint(0, WORDS, (6, 16)), torch.rand(6, 16) < 0.5
    states, heard = torch.randn(2, 7, DIM), torch.ones(2, 7, dtype=torch.bool)
    heard[1, 4:] = False
    together = model(tokens, masked, model.memory(states, heard))
    for i in range(6):
        memory = model.memory(states[i // 3 : i // 3 + 1, : 7 if i < 3 else 4])
        torch.testing.assert_close(together[i : i + 1], model(tokens[i : i + 1], masked[i : i + 1], memory))


def published(bridge: bool) -> dict[str, torch.Tensor]:
    """A checkpoint as SMDM (or Whisfusion) would have written it: their names, fused rows, bf16."""
    shapes = {"lm_head": (WORDS, WIDTH), "transformer.wte": (WORDS + 1, WIDTH), "transformer.ln_f": (WIDTH,)}
    for i in range(LAYERS):
        block = f"transformer.h.{i}"
        shapes |= {f"{block}.norm_1": (WIDTH,), f"{block}.norm_2": (WIDTH,)}
        shapes |= {f"{block}.attn.attn": (3 * WIDTH, WIDTH), f"{block}.attn.proj": (WIDTH, WIDTH)}
        shapes |= {f"{block}.mlp.swiglu.w{n}": (24, WIDTH) for n in (1, 2)}
        shapes |= {f"{block}.mlp.swiglu.w3": (WIDTH, 24)}
        if bridge:
            shapes |= {f"{block}.norm_cross": (WIDTH,), f"{block}.cross_attn.kv_proj": (2 * WIDTH, DIM)}
            shapes |= {f"{block}.cross_attn.{n}": (WIDTH, WIDTH) for n in ("q_proj", "proj")}
    return {f"{name}.weight": (0.3 * torch.randn(shape)).bfloat16() for name, shape in shapes.items()}


def by_their_code(w: dict[str, torch.Tensor], tokens: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """What their model computes, written down from its equations with their fused layout."""
    w = {name.removesuffix(".weight"): value.float() for name, value in w.items()}
    size = WIDTH // HEADS

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return ((q @ k.mT * size**-0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)

    x = w["transformer.wte"][tokens]
    angle = torch.outer(torch.arange(tokens.shape[1]).float(), 10_000 ** -(torch.arange(0, size, 2) / size))
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def turned(t: torch.Tensor) -> torch.Tensor:
        a, b = t[..., : size // 2], t[..., size // 2 :]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    for i in range(LAYERS):
        own = {n.removeprefix(f"transformer.h.{i}."): t for n, t in w.items() if f".h.{i}." in n}
        fused = (norm(x, own["norm_1"]) @ own["attn.attn"].T).unflatten(-1, (HEADS, 3, size))
        q, k, v = fused.unbind(-2)
        x = x + attend(turned(q), turned(k), v) @ own["attn.proj"].T
        q = (norm(x, own["norm_cross"]) @ own["cross_attn.q_proj"].T).unflatten(-1, (HEADS, size))
        k, v = (
            part.unflatten(-1, (HEADS, size)) for part in (states @ own["cross_attn.kv_proj"].T).chunk(2, -1)
        )
        x = x + attend(q, k, v) @ own["cross_attn.proj"].T
        h = norm(x, own["norm_2"])
        h = F.silu(h @ own["mlp.swiglu.w1"].T) * (h @ own["mlp.swiglu.w2"].T)
        x = x + h @ own["mlp.swiglu.w3"].T
    return norm(x, w["transformer.ln_f"]) @ w["lm_head"].T


@torch.no_grad()
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_checkpoint_by_their_names_gives_what_their_equations_give(tmp_path, suffix):
    weights, path = published(bridge=True), tmp_path / f"model.{suffix}"
    if suffix == "pt":
        torch.save({"model": {f"module.{name}": value for name, value in weights.items()}}, path)
    else:
        save_file(weights, path)
    model = decoder()
    assert load_checkpoint(model, path)
    tokens, masked, states = torch.randint(0, WORDS, (2, 11)), torch.rand(2, 11) < 0.5, torch.randn(2, 7, DIM)
    wanted = by_their_code(weights, tokens.masked_fill(masked, WORDS), states)
    torch.testing.assert_close(model(tokens, masked, model.memory(states)), wanted, rtol=1e-4, atol=1e-4)


def test_the_text_model_alone_leaves_the_bridge_and_another_shape_is_told(tmp_path):
    save_file(published(bridge=False), tmp_path / "text.safetensors")
    model = decoder()
    before = [p.clone() for p in model.bridge]
    assert not load_checkpoint(model, tmp_path / "text.safetensors")
    assert all(torch.equal(*pair) for pair in zip(before, model.bridge, strict=True))
    for other, said in (({"layers": 3}, "3 blocks"), ({"inner": 32}, "inner width")):
        with pytest.raises(ConfigError, match=said):
            load_checkpoint(decoder(**other), tmp_path / "text.safetensors")
    with pytest.raises(ConfigError, match="no file"):
        load_checkpoint(model, tmp_path / "gone.pt")


def test_turning_keeps_lengths_and_tells_only_how_far_apart_places_are():
    q, k = torch.randn(2, 1, 1, 1, 8)
    cos, sin = rotation(20, 8, q)
    at = [(rotated(q, cos[i], sin[i]) * rotated(k, cos[i + 3], sin[i + 3])).sum() for i in (0, 5, 16)]
    torch.testing.assert_close(at[0], at[1])
    torch.testing.assert_close(at[0], at[2])


def test_times_follow_what_the_heads_look_at_and_words_begin_with_spaces():
    reads = Reads()
    (frames,) = placed(reads, reads.memory(clips([3, 4, 5, 6, 7, 8])), [[3, 4, 5]], [6])
    assert list(frames) == sorted(frames)
    assert frames[0] == 0
    words = words_of([" a", "b", " c"], [0.0, 1.0, 2.0, 3.0], 2.5, [0.2, 0.4, 1.0])
    assert [(w.word, w.start, w.end) for w in words] == [(" ab", 0.0, 2.0), (" c", 2.0, 2.5)]
    assert words[0].probability == pytest.approx(0.3)


def test_a_decoder_of_its_own_reads_any_encoder_by_characters():
    backbone = tiny("usm")
    own = build(
        backbone, kind="scratch", tokenizer="characters", characters="ab ", width=16, layers=1, heads=2
    )
    states = torch.randn(2, 30, backbone.dim)
    heard = torch.arange(30) < torch.tensor([[30], [12]])
    found = MaskedReader(own).read(states, heard, backbone.frame_rate)
    assert all(set(text.text) <= set("ab ") for text, _ in found)
    for (_, words), seconds in zip(found, (30, 12), strict=True):
        assert all(0 <= w.start <= w.end <= seconds / backbone.frame_rate for w in words)
    with pytest.raises(ConfigError, match="has none of its own"):
        texts(backbone, "own")
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        texts(backbone, "/nowhere")
