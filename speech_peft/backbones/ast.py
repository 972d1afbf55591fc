"""AST, the audio spectrogram transformer: a fixed window of 10.24 s, cut into patches of time and frequency.

A block's states are tokens: two summary tokens, then the patches of every frequency band. `encode` averages
the bands, so that its states run in time like any other encoder's, and gives the stock summary as `pooled`.
"""

from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..registry import BACKBONES
from .base import Backbone, Encoded, Features, Row, Stack, below, extractor_settings, load, truncated
from .mel import FRAME, HOP, KaldiMel, frames_of
from .weights import Origin

_ROWS = (
    Row("block", "block", "{b}"),
    Row("tail", "tail", "{b}.mlp", "{b}"),
    Row("attn", "attn", "{b}.attention"),
    *(Row(f"attn.{n}", "linear", f"{{b}}.attention.{n}_proj") for n in "qkvo"),
    Row("norm_attn", "norm", "{b}.layernorm_before"),
    Row("ffn", "ffn", "{b}.mlp"),
    Row("ffn.up", "linear", "{b}.mlp.fc1"),
    Row("ffn.down", "linear", "{b}.mlp.fc2"),
    Row("norm_ffn", "norm", "{b}.layernorm_after"),
)
# Positions are added before the first block, and nothing masks: tokens may come and go inside these sites.
_STACK = Stack("layers", _ROWS, frozenset({"stack", "block", "attn"}), "layernorm")


@BACKBONES.register("ast")
class Ast(Backbone):
    """ASTModel; `layer` stops after that block, counted from 1, and gives its states raw."""

    min_samples = FRAME

    def __init__(
        self,
        module: Any,
        origin: Origin,
        layer: int | None = None,
        mean: float = -4.2677393,
        std: float = 4.5689974,
    ):
        config = module.config
        self.dim, self.depth, self.layer = (
            config.hidden_size,
            truncated(layer, config.num_hidden_layers),
            layer,
        )
        self.stacks = (_STACK.without_final_norm() if layer else _STACK,)
        self.bands, self.columns = module.embeddings.get_shape(config)
        self.frame_rate = 100.0 / config.time_stride
        self.max_seconds = config.max_length * HOP / self.sample_rate
        self.mean, self.std = mean, std
        self._mel = KaldiMel(config.num_mel_bins, "hann", scale=1.0)
        super().__init__(module, origin, {"layer": layer} if layer else {})

    @classmethod
    def open(cls, folder: Path, origin: Origin, layer: int | None = None) -> "Ast":
        from transformers import ASTModel

        settings = extractor_settings(folder)
        normal = {key: settings[key] for key in ("mean", "std") if key in settings}
        return cls(load(ASTModel, folder), origin, layer, **normal)

    @classmethod
    def tiny(cls, seed: int, layer: int | None = None) -> "Ast":
        from transformers import ASTConfig, ASTModel

        config = ASTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            num_mel_bins=32,
            max_length=256,
            patch_size=16,
            frequency_stride=16,
            time_stride=16,
        )
        return cls(ASTModel(config), Origin("tiny:ast", f"seed {seed}"), layer)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.module.layers[: self.depth]

    def padded_samples(self, samples: int) -> int:
        return FRAME + (self.module.config.max_length - 1) * HOP

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        config, frames = self.module.config, frames_of(lengths)
        mel = self._mel(audio).masked_fill(~below(frames, config.max_length)[..., None], 0.0)
        columns = ((frames - config.patch_size) // config.time_stride + 1).clamp(1, self.columns)
        return Features((mel - self.mean) / (self.std * 2), None, columns)

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        return self.module.embeddings(features.values.to(self.dtype))

    def _side(self, features: Features, states: Tensor) -> dict[str, Any]:
        return {"attention_mask": None}

    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        if not self.layer:
            states = self.module.layernorm(states)
        pooled = (states[:, 0] + states[:, 1]) / 2
        in_time = states[:, 2:].unflatten(1, (self.bands, self.columns)).mean(1)
        return Encoded(in_time, below(features.lengths, self.columns), pooled)
