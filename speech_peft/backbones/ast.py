"""AST, the audio spectrogram transformer: a window of 10.24 s, cut into patches of time and frequency.

With `context="fit"` it reads only what a batch holds, rounded up to half a second, and the learned positions
are interpolated along time to as many columns of patches as there are; at 10.24 s they are those of the file.
Nothing masks padding, so results are independent of the rest of a batch only when its clips share one length
of the grid (`padded_samples`).

A block's states are tokens: two summary tokens, then the patches of every frequency band. `encode` averages
the bands, so that its states run in time like any other encoder's, and gives the stock summary as `pooled`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.context import Context
from ..errors import ConfigError
from ..registry import BACKBONES
from . import told
from .base import Backbone, Encoded, Features, truncated
from .checkpoints.checkpoint import extractor_settings, load
from .checkpoints.weights import Origin
from .frames import below
from .mel import FRAME, HOP, KaldiMel, frames_of
from .stack import Row, Stack

GRID_SAMPLES = 8000  # half a second, as Whisper's
_KEYS = ("{b}.layernorm_before", "{b}.attention.k_proj", "{b}.attention.v_proj")
_ROWS = (
    Row("block", "block", "{b}", keys=_KEYS),
    Row("tail", "tail", "{b}.mlp", "{b}"),
    Row("attn", "attn", "{b}.attention"),
    *(Row(f"attn.{n}", "linear", f"{{b}}.attention.{n}_proj") for n in "qkvo"),
    Row("norm_attn", "norm", "{b}.layernorm_before"),
    Row("ffn", "ffn", "{b}.mlp"),
    Row("ffn.up", "linear", "{b}.mlp.fc1"),
    Row("ffn.down", "linear", "{b}.mlp.fc2"),
    Row("norm_ffn", "norm", "{b}.layernorm_after"),
)
_FRONT = (("patches", "embeddings.patch_embeddings.projection"),)
# Positions are added before the first block, and nothing masks: tokens may come and go inside these sites.
_STACK = Stack(
    "layers",
    _ROWS,
    frozenset({"stack", "block", "attn"}),
    "layernorm",
    front=_FRONT,
    told=told.ast,
    patches="embeddings",
)


@BACKBONES.register("ast")
class Ast(Backbone):
    """ASTModel; `layer` stops after that block, counted from 1, and gives its states raw.

    `context` is "full" (stock: every clip padded to 10.24 s) or "fit" (the length of the audio, also a longer
    one).
    """

    min_samples = FRAME
    feature_axes = (1, 2)
    summarises = True
    stacks: Sequence[Stack] = (_STACK,)
    model_types = ("audio-spectrogram-transformer",)
    holders: ClassVar = {"ASTModel": ""}
    contexts: ClassVar[tuple[str, ...]] = ("full", "fit")

    def __init__(
        self,
        module: Any,
        origin: Origin,
        layer: int | None = None,
        mean: float = -4.2677393,
        std: float = 4.5689974,
        context: str = "full",
    ):
        if context not in self.contexts:
            raise ConfigError(f"backbone.context: {context!r} is neither 'full' nor 'fit'")
        config = module.config
        self.dim, self.depth, self.layer = (
            config.hidden_size,
            truncated(layer, config.num_hidden_layers),
            layer,
        )
        self.stacks = (_STACK.without_final_norm() if layer else _STACK,)
        self.bands, self.columns = module.embeddings.get_shape(config)
        self.frame_rate = 100.0 / config.time_stride
        self.context = context
        self.max_seconds = config.max_length * HOP / self.sample_rate if context == "full" else None
        self.mean, self.std = mean, std
        self._mel = KaldiMel(config.num_mel_bins, "hann", scale=1.0)
        options = {"layer": layer} if layer else {}
        super().__init__(module, origin, {**options, **({"context": "fit"} if context == "fit" else {})})

    @classmethod
    def open(cls, folder: Path, origin: Origin, layer: int | None = None, context: str = "full") -> "Ast":
        from transformers import ASTModel

        settings = extractor_settings(folder)
        normal = {key: settings[key] for key in ("mean", "std") if key in settings}
        return cls(load(ASTModel, folder), origin, layer, **normal, context=context)

    @classmethod
    def tiny(cls, seed: int, layer: int | None = None, context: str = "full") -> "Ast":
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
        return cls(ASTModel(config), Origin("tiny:ast", f"seed {seed}"), layer, context=context)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.module.layers[: self.depth]

    def padded_samples(self, samples: int) -> int:
        native = FRAME + (self.module.config.max_length - 1) * HOP
        on_grid = -(-samples // GRID_SAMPLES) * GRID_SAMPLES
        return native if self.context == "full" or samples <= native < on_grid else on_grid

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        frames, mel = frames_of(lengths), self._mel(audio)
        mel = mel.masked_fill(~below(frames, mel.shape[1])[..., None], 0.0)
        columns = self._columns_of(frames).clamp(1, self._columns_of(mel.shape[1]))
        return Features((mel - self.mean) / (self.std * 2), None, columns)

    def _columns_of(self, frames: Any) -> Any:
        """How many columns of patches lie in so many frames (a number or a tensor)."""
        config = self.module.config
        return (frames - config.patch_size) // config.time_stride + 1

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        embeddings, values = self.module.embeddings, features.values.to(self.dtype)
        columns = self._columns_of(values.shape[1])
        if columns == self.columns:
            return embeddings(values)
        patches = embeddings.patch_embeddings(values)
        summary = torch.cat((embeddings.cls_token, embeddings.distillation_token), 1)
        states = torch.cat((summary.expand(len(patches), -1, -1), patches), 1)
        return embeddings.dropout(states + self._positions(columns))

    def _positions(self, columns: int) -> Float[Tensor, "1 n d"]:
        """The learned positions for another number of columns: each band's row stretched or squeezed."""
        table = self.module.embeddings.position_embeddings
        rows = table[0, 2:].unflatten(0, (self.bands, self.columns)).transpose(1, 2)
        rows = nn.functional.interpolate(rows.float(), size=columns, mode="linear", align_corners=False)
        return torch.cat((table[:, :2], rows.to(table.dtype).transpose(1, 2).flatten(0, 1)[None]), 1)

    def _side(self, features: Features, states: Tensor) -> dict[str, Any]:
        return {"attention_mask": None}

    def _known(self, features: Features, states: Float[Tensor, "b n d"]) -> Context:
        columns = below(features.lengths, (states.shape[1] - 2) // self.bands)
        sound = nn.functional.pad(columns.repeat(1, self.bands), (2, 0), value=True)
        return Context(sound=sound, summary=(0, 2))

    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        if not self.layer:
            states = self.module.layernorm(states)
        pooled = (states[:, 0] + states[:, 1]) / 2
        in_time = self._in_time(states, features)
        return Encoded(in_time, self.mask_of(features, in_time), pooled)

    def _in_time(self, states: Float[Tensor, "b n d"], features: Features) -> Float[Tensor, "b t d"]:
        return states[:, 2:].unflatten(1, (self.bands, -1)).mean(1)

    def _idle(self) -> list[nn.Module]:
        return [*super()._idle(), *([self.module.layernorm] if self.layer else [])]
