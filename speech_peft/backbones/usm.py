"""USM, the universal speech model: the audio tower of Gemma 3n, a Conformer with local attention.

Its stock output keeps every fourth state (6.25 a second), which is what Gemma reads. With `layer` the states
of that block come out as they are, 25 a second: what Miipher-2 and CTC want.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import BACKBONES
from . import told
from .base import Backbone, Encoded, Features, truncated
from .checkpoints.checkpoint import load, made
from .checkpoints.config_json import model_type, read_config
from .checkpoints.weights import Origin
from .frames import below
from .stack import Row, Stack

# Sublayers add their own residual, so their sites span from what the first norm gives to what is added.
_ROWS = (
    Row("block", "block", "{b}"),
    Row("tail", "tail", "{b}.ffw_layer_end", "{b}"),
    Row("ffn1", "ffn", "{b}.ffw_layer_start.ffw_layer_1", "{b}.ffw_layer_start.post_layer_norm"),
    Row("ffn1.up", "linear", "{b}.ffw_layer_start.ffw_layer_1"),
    Row("ffn1.down", "linear", "{b}.ffw_layer_start.ffw_layer_2"),
    Row("norm_ffn1", "norm", "{b}.ffw_layer_start.pre_layer_norm"),
    Row("norm_ffn1_out", "norm", "{b}.ffw_layer_start.post_layer_norm"),
    Row("attn", "attn", "{b}.attention.attn", "{b}.attention.post_norm"),
    *(Row(f"attn.{n}", "linear", f"{{b}}.attention.attn.{n}_proj") for n in "qkv"),
    Row("attn.o", "linear", "{b}.attention.post"),
    Row("norm_attn", "norm", "{b}.attention.pre_attn_norm"),
    Row("norm_attn_out", "norm", "{b}.attention.post_norm"),
    Row("conv", "conv", "{b}.lconv1d.linear_start", "{b}.lconv1d.linear_end"),
    Row("norm_conv", "norm", "{b}.lconv1d.pre_layer_norm"),
    Row("ffn", "ffn", "{b}.ffw_layer_end.ffw_layer_1", "{b}.ffw_layer_end.post_layer_norm"),
    Row("ffn.up", "linear", "{b}.ffw_layer_end.ffw_layer_1"),
    Row("ffn.down", "linear", "{b}.ffw_layer_end.ffw_layer_2"),
    Row("norm_ffn", "norm", "{b}.ffw_layer_end.pre_layer_norm"),
    Row("norm_ffn_out", "norm", "{b}.ffw_layer_end.post_layer_norm"),
    Row("norm_out", "norm", "{b}.norm"),
)


@BACKBONES.register("usm")
class Usm(Backbone):
    """Gemma3nAudioEncoder; `layer` stops after that block, counted from 1, and gives its states raw."""

    stacks: Sequence[Stack] = (
        Stack("conformer", _ROWS, told=told.usm),
    )  # local attention in chunks, one mask: length is fixed
    model_types = ("gemma3n",)
    holders: ClassVar = {"Gemma3nAudioEncoder": ""}
    min_samples = 2048
    feature_axes = (1, 2)

    def __init__(self, module: Any, origin: Origin, layer: int | None = None):
        from transformers.models.gemma3n.feature_extraction_gemma3n import Gemma3nAudioFeatureExtractor

        config = module.config
        self.dim, self.depth, self.layer = (
            config.hidden_size,
            truncated(layer, config.conf_num_hidden_layers),
            layer,
        )
        self._extract = Gemma3nAudioFeatureExtractor(feature_size=config.input_feat_size)
        self.subsampling = 1
        for stride, _ in config.sscp_conv_stride_size:
            self.subsampling *= stride
        self.reduction = 1 if layer else config.conf_reduction_factor
        self.frame_rate = 100.0 / self.subsampling / self.reduction
        super().__init__(module, origin, {"layer": layer} if layer else {})

    @classmethod
    def open(cls, folder: Path, origin: Origin, layer: int | None = None) -> "Usm":
        from transformers.models.gemma3n.configuration_gemma3n import Gemma3nAudioConfig
        from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder

        settings = read_config(folder)
        if not (kind := model_type(settings)).startswith("gemma3n"):
            raise ConfigError(f"weights: {folder} is a {kind!r} model; the USM here is Gemma 3n's")
        inner = settings.get("audio_config", settings)
        config = made(Gemma3nAudioConfig, inner, folder / "config.json")
        # In a whole Gemma 3n the tower is one part of many; the others are left on disk.
        inside = {r"^(model\.)?audio_tower\.": ""}
        return cls(load(Gemma3nAudioEncoder, folder, config=config, key_mapping=inside), origin, layer)

    @classmethod
    def tiny(cls, seed: int, layer: int | None = None) -> "Usm":
        from transformers.models.gemma3n.configuration_gemma3n import Gemma3nAudioConfig
        from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder

        config = Gemma3nAudioConfig(
            hidden_size=32,
            conf_num_hidden_layers=2,
            conf_num_attention_heads=2,
            input_feat_size=32,
            sscp_conv_channel_size=(8, 4),
            conf_reduction_factor=1,
        )
        return cls(Gemma3nAudioEncoder(config), Origin("tiny:usm", f"seed {seed}"), layer)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.module.conformer[: self.depth]

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        clips = [clip[:length].cpu().numpy() for clip, length in zip(audio, lengths.tolist(), strict=True)]
        found = self._extract(clips, max_length=None, truncation=False, return_tensors="pt").to(audio.device)
        mask = found["input_features_mask"].bool()
        states = -(-mask.sum(1) // self.subsampling)
        return Features(found["input_features"], mask, -(-states // self.reduction))

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        return self.module.subsample_conv_projection(features.values.to(self.dtype))

    def _side(self, features: Features, states: Tensor) -> dict[str, Any]:
        return {"audio_mel_mask": ~self._sound(features, states.shape[1])}  # True where there is none

    def _heard(self, features: Features, states: Float[Tensor, "b t d"]) -> Bool[Tensor, "b t"]:
        return self._sound(features, states.shape[1])

    def _sound(self, features: Features, width: int) -> Tensor:
        assert features.mask is not None
        return below(-(-features.mask.sum(1) // self.subsampling), width)

    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        states = self._in_time(states, features)
        return Encoded(states, self.mask_of(features, states))

    def _in_time(self, states: Float[Tensor, "b n d"], features: Features) -> Float[Tensor, "b t d"]:
        sound = self._sound(features, states.shape[1])[:, :: self.reduction]
        return states[:, :: self.reduction].masked_fill(~sound[..., None], 0.0)
