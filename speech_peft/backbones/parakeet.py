"""Parakeet's FastConformer: a conformer on eight mel frames a state, opened as `conformer`."""

from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from . import told
from .base import Features
from .checkpoints.checkpoint import load, made
from .checkpoints.config_json import read_config
from .checkpoints.weights import Origin
from .conformer import Conformer
from .frames import below
from .mel import HOP
from .stack import Row, Stack

# As in every conformer positions are relative, so no site may change the length.
_ROWS = (
    Row("block", "block", "{b}"),
    Row("tail", "tail", "{b}.norm_feed_forward2", "{b}"),
    Row("ffn1", "ffn", "{b}.feed_forward1"),
    Row("ffn1.up", "linear", "{b}.feed_forward1.linear1"),
    Row("ffn1.down", "linear", "{b}.feed_forward1.linear2"),
    Row("norm_ffn1", "norm", "{b}.norm_feed_forward1"),
    Row("attn", "attn", "{b}.self_attn"),
    *(Row(f"attn.{n}", "linear", f"{{b}}.self_attn.{n}_proj") for n in "qkvo"),
    Row("norm_attn", "norm", "{b}.norm_self_att"),
    Row("conv", "conv", "{b}.conv"),
    Row("norm_conv", "norm", "{b}.norm_conv"),
    Row("ffn", "ffn", "{b}.feed_forward2"),
    Row("ffn.up", "linear", "{b}.feed_forward2.linear1"),
    Row("ffn.down", "linear", "{b}.feed_forward2.linear2"),
    Row("norm_ffn", "norm", "{b}.norm_feed_forward2"),
    Row("norm_out", "norm", "{b}.norm_out"),
)


class Parakeet(Conformer):
    """Parakeet's FastConformer encoder: eight mel frames to a state."""

    stack = Stack("layers", _ROWS, told=told.conformer)
    model_types = ("parakeet",)
    holders: ClassVar = {"ParakeetEncoder": ""}
    min_samples = 16 * HOP  # two states
    feature_axes = (1, 2)

    def __init__(self, module: Any, origin: Origin, layer: int | None, settings: dict[str, Any]):
        from transformers import ParakeetFeatureExtractor

        known = ("preemphasis", "n_fft", "hop_length", "win_length")
        self._extract = ParakeetFeatureExtractor(
            feature_size=module.config.num_mel_bins,
            **{key: settings[key] for key in known if key in settings},
        )
        self.frame_rate = self.sample_rate / self._extract.hop_length / module.config.subsampling_factor
        super().__init__(module, origin, layer, settings)

    @classmethod
    def load(cls, folder: Path) -> Any:
        from transformers import ParakeetEncoder, ParakeetEncoderConfig

        settings = read_config(folder)
        inner = settings.get("encoder_config", settings)
        config = made(ParakeetEncoderConfig, inner, folder / "config.json")
        return load(ParakeetEncoder, folder, config=config)

    @classmethod
    def tiny_module(cls) -> Any:
        from transformers import ParakeetEncoder, ParakeetEncoderConfig

        return ParakeetEncoder(
            ParakeetEncoderConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                subsampling_conv_channels=8,
                num_mel_bins=32,
                conv_kernel_size=7,
            )
        )

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        clips: Any = [clip[:length].cpu() for clip, length in zip(audio, lengths.tolist(), strict=True)]
        found = self._extract(clips, sampling_rate=self.sample_rate, return_tensors="pt").to(audio.device)
        frames = found["attention_mask"].sum(-1)
        states = self.module._get_subsampling_output_length(frames).long()
        return Features(found["input_features"], found["attention_mask"], states)

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        module = self.module
        return module.subsampling(features.values.to(self.dtype), features.mask) * module.input_scale

    def _side(self, features: Features, states: Tensor) -> dict[str, Any]:
        sound = below(features.lengths, states.shape[1])
        return {
            "attention_mask": (sound[:, None, :] & sound[:, :, None])[:, None],
            "position_embeddings": self.module.encode_positions(states),
        }
