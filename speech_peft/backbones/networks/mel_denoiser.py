"""What a mel diffusion is made of: a transformer that takes noise out of a spectrogram.

Its blocks are those of PixArt-alpha (Chen et al. 2023, arXiv:2310.00426), whose images are frames here:

    h = h + g1 attn(s1 LN(h) + b1)          all frames
    h = h + cross(LN(h), tokens)            the tokens of a class
    h = h + g2 ffn(s2 LN(h) + b2)           s, b and g are of the time: a table of each block, and one change

It says v = a e - s x of a x + s e, noise e in a spectrogram x (Salimans and Ho 2022, arXiv:2202.00512).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from ...core.listening.sinusoids import sinusoids

_PARTS = 6  # shift, scale and gate of the attention, and of the feed-forward layers


class MelDenoiserConfig(PretrainedConfig):
    """Sizes, the classes (`id2label`), and how features are scaled."""

    model_type = "mel_diffusion"

    def __init__(
        self,
        hidden_size: int = 192,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 4,
        intermediate_size: int = 768,
        num_mel_bins: int = 64,
        stacked_frames: int = 2,
        class_tokens: int = 4,
        mean: float = -5.0,
        std: float = 3.2,
        **others: Any,
    ):
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_mel_bins, self.stacked_frames, self.class_tokens = num_mel_bins, stacked_frames, class_tokens
        self.mean, self.std = mean, std
        super().__init__(**others)


class Heads(nn.Module):
    """An attention over the frames themselves, or over what is given."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.head_dim = dim // heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(dim, dim) for _ in "qkvo")

    def forward(
        self, x: Float[Tensor, "b t d"], memory: Float[Tensor, "b m d"] | None = None
    ) -> Float[Tensor, "b t d"]:
        z = x if memory is None else memory
        parts = self.q_proj(x), self.k_proj(z), self.v_proj(z)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        return self.o_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Frames hear each other, then the class, then each is thought over."""

    def __init__(self, config: MelDenoiserConfig):
        super().__init__()
        dim, heads = config.hidden_size, config.num_attention_heads
        self.attn, self.cross = Heads(dim, heads), Heads(dim, heads)
        self.ffn = FeedForward(dim, config.intermediate_size)
        self.table = nn.Parameter(torch.zeros(_PARTS, dim))
        nn.init.zeros_(self.cross.o_proj.weight)

    def forward(
        self, x: Float[Tensor, "b t d"], time: Float[Tensor, "b 6 d"], tokens: Float[Tensor, "b m d"]
    ) -> Float[Tensor, "b t d"]:
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = (time + self.table)[:, :, None].unbind(1)
        x = x + gate * self.attn(_norm(x) * (1 + scale) + shift)
        x = x + self.cross(_norm(x), tokens)
        return x + gate_ffn * self.ffn(_norm(x) * (1 + scale_ffn) + shift_ffn)


class MelDenoiser(PreTrainedModel):
    """Stacked frames of a noisy spectrogram, how noisy it is, and its class, to what is to be taken out."""

    config_class = MelDenoiserConfig
    base_model_prefix = "denoiser"

    def __init__(self, config: MelDenoiserConfig):
        super().__init__(config)
        dim, wide = config.hidden_size, config.num_mel_bins * config.stacked_frames
        self.enter, self.leave = nn.Linear(wide, dim), nn.Linear(dim, wide)
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())
        self.change = nn.Linear(dim, _PARTS * dim)
        # The last is of no class: what guidance compares with.
        self.classes = nn.Embedding(len(config.id2label or ()) + 1, config.class_tokens * dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.table = nn.Parameter(torch.zeros(2, dim))
        for module in (self.change, self.leave):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: layers begin as they were made, and no checkpoint lacks any."""

    def forward(
        self, noisy: Float[Tensor, "b t w"], time: Float[Tensor, " b"], classes: Int[Tensor, " b"]
    ) -> Float[Tensor, "b t w"]:
        """`time` is 0 where nothing is noise and 1 where all is; a class of -1 is none."""
        states, side = self.entered(noisy), self.told(time, classes)
        for block in self.blocks:
            states = block(states, *side)
        return self.left(states, time)

    def entered(self, noisy: Float[Tensor, "b t w"]) -> Float[Tensor, "b t d"]:
        """States before the first block; places are sines, so that any length can be heard."""
        states = self.enter(noisy)
        return states + sinusoids(states.shape[1], states.shape[2], states.device).to(states.dtype)

    def told(
        self, time: Float[Tensor, " b"], classes: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b 6 d"], Float[Tensor, "b m d"]]:
        """What every block is told of the time, and of the class."""
        dim = self.config.hidden_size
        unknown = self.classes.num_embeddings - 1
        tokens = self.classes(classes.where(classes >= 0, unknown)).unflatten(-1, (-1, dim))
        return self.change(self._moment(time)).unflatten(-1, (_PARTS, dim)), tokens

    def left(self, states: Float[Tensor, "b t d"], time: Float[Tensor, " b"]) -> Float[Tensor, "b t w"]:
        """What follows the last block."""
        shift, scale = (self._moment(time)[:, None] + self.table)[:, :, None].unbind(1)
        return self.leave(_norm(states) * (1 + scale) + shift)

    def _moment(self, time: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        half = self.config.hidden_size // 2
        rates = 10_000 ** (-torch.arange(half, device=time.device) / half)
        angles = 1000 * time.float()[:, None] * rates
        return self.time(torch.cat((angles.sin(), angles.cos()), -1).to(self.table.dtype))


def _norm(x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    return F.layer_norm(x, x.shape[-1:])
