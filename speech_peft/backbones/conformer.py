"""Conformers: Wav2Vec2-BERT 2.0 and Wav2Vec2-Conformer; Parakeet is one too (`backbones/parakeet.py`).

Which of them a folder holds is told by its config's model type.

A block adds half of each feed-forward, so an adapter at `ffn` or `ffn1` is halved with it. The states are
those of the encoder; the pooling layers that some checkpoints put behind it are left out.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..errors import ConfigError, did_you_mean
from ..registry import BACKBONES
from . import told
from .base import Backbone, Encoded, Features, truncated
from .checkpoints.checkpoint import extractor_settings, load
from .checkpoints.config_json import model_type, read_config
from .checkpoints.weights import Origin
from .frames import below
from .mel import HOP, KaldiMel, frames_of
from .stack import Row, Stack

# Positions are relative and masks are made for the whole length, so no site of a Conformer may change it.
_ROWS = (
    Row("block", "block", "{b}"),
    Row("tail", "tail", "{b}.ffn2_layer_norm", "{b}"),
    Row("ffn1", "ffn", "{b}.ffn1"),
    Row("ffn1.up", "linear", "{b}.ffn1.intermediate_dense"),
    Row("ffn1.down", "linear", "{b}.ffn1.output_dense"),
    Row("norm_ffn1", "norm", "{b}.ffn1_layer_norm"),
    Row("attn", "attn", "{b}.self_attn"),
    *(Row(f"attn.{n}", "linear", f"{{b}}.self_attn.linear_{n}") for n in "qkv"),
    Row("attn.o", "linear", "{b}.self_attn.linear_out"),
    Row("norm_attn", "norm", "{b}.self_attn_layer_norm"),
    Row("conv", "conv", "{b}.conv_module"),
    Row("norm_conv", "norm", "{b}.conv_module.layer_norm"),
    Row("ffn", "ffn", "{b}.ffn2"),
    Row("ffn.up", "linear", "{b}.ffn2.intermediate_dense"),
    Row("ffn.down", "linear", "{b}.ffn2.output_dense"),
    Row("norm_ffn", "norm", "{b}.ffn2_layer_norm"),
    Row("norm_out", "norm", "{b}.final_layer_norm"),
)


@BACKBONES.register("conformer")
class Conformer(Backbone):
    """Any of the families; `layer` stops after that block, counted from 1, and gives its states raw."""

    frame_rate: float = 50.0
    stack: ClassVar[Stack]
    # What masks inputs in pretraining, what some checkpoints put behind the encoder, and a position embedding
    # that the stock forward makes and drops.
    unread = ("masked_spec_embed", "adapter.", "intermediate_ffn.", "encoder.pos_conv_embed.")

    def __init__(self, module: Any, origin: Origin, layer: int | None, settings: dict[str, Any]):
        config = module.config
        self.dim, self.depth, self.layer = (
            config.hidden_size,
            truncated(layer, config.num_hidden_layers),
            layer,
        )
        self.stacks = (self.stack.without_final_norm() if layer else self.stack,)
        self.settings = settings
        super().__init__(module, origin, {"layer": layer} if layer else {})

    @classmethod
    def open(cls, folder: Path, origin: Origin, layer: int | None = None) -> "Conformer":
        kind = model_type(read_config(folder))
        known = families()
        family = next((f for model_type, f in known.items() if kind.startswith(model_type)), None)
        if family is None:
            raise ConfigError(
                f"weights: {folder} is a {kind!r} model; a conformer is one of {', '.join(known)}"
            )
        return family(family.load(folder), origin, layer, extractor_settings(folder))

    @classmethod
    def tiny(cls, seed: int, family: str = "wav2vec2-bert", layer: int | None = None) -> "Conformer":
        known = families()
        if family not in known:
            raise ConfigError(
                f"backbone.family: no conformer is called {family!r}. {did_you_mean(family, known)}"
            )
        origin = Origin("tiny:conformer", f"{family}, seed {seed}")
        return known[family](known[family].tiny_module(), origin, layer, {})

    @classmethod
    def kinds(cls) -> "Sequence[type[Conformer]]":
        return tuple(families().values())

    @classmethod
    def table(cls) -> Sequence[Stack]:
        return (cls.stack,)

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Any:
        """The stock module with the weights in `folder`."""

    @classmethod
    @abstractmethod
    def tiny_module(cls) -> Any:
        """The stock module, random and small."""

    @property
    def blocks(self) -> nn.ModuleList:
        return self.module.get_submodule(self.stack.path)[: self.depth]

    def _side(self, features: Features, states: Tensor) -> dict[str, Any]:
        from transformers.masking_utils import create_bidirectional_mask

        encoder = self.module.encoder
        positions = encoder.embed_positions(states) if encoder.embed_positions is not None else None
        mask = create_bidirectional_mask(
            config=encoder.config,
            inputs_embeds=states,
            attention_mask=below(features.lengths, states.shape[1]),
        )
        return {"attention_mask": mask, "relative_position_embeddings": positions}

    def _heard(self, features: Features, states: Float[Tensor, "b t d"]) -> Bool[Tensor, "b t"]:
        return below(features.lengths, states.shape[1])

    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        return Encoded(states, below(features.lengths, states.shape[1]))


class Wav2Vec2Bert(Conformer):
    """Wav2Vec2-BERT 2.0: pairs of Kaldi log-mel frames, normalised per clip and bin."""

    stack = Stack("encoder.layers", _ROWS, told=told.conformer)
    model_types = ("wav2vec2-bert",)
    holders: ClassVar = {"Wav2Vec2BertModel": ""}
    min_samples = 4 * HOP + 240  # four mel frames: two would leave a deviation over next to nothing
    feature_axes = (1, 2)

    def __init__(self, module: Any, origin: Origin, layer: int | None, settings: dict[str, Any]):
        self.stride = self.stacked_frames = int(settings.get("stride", 2))
        bins = module.config.feature_projection_input_dim // self.stride
        self._mel = KaldiMel(bins, "povey", scale=2.0**15)
        super().__init__(module, origin, layer, settings)

    @classmethod
    def load(cls, folder: Path) -> Any:
        from transformers import Wav2Vec2BertModel

        return load(Wav2Vec2BertModel, folder)

    @classmethod
    def tiny_module(cls) -> Any:
        from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

        return Wav2Vec2BertModel(
            Wav2Vec2BertConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                feature_projection_input_dim=40,
                conv_depthwise_kernel_size=7,
            )
        )

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        frames = frames_of(lengths)
        mel = self._mel(audio)
        mel = nn.functional.pad(mel, (0, 0, 0, -mel.shape[1] % self.stride))
        sound = below(frames, mel.shape[1])[..., None]
        mean = mel.where(sound, 0).sum(1, keepdim=True) / frames[:, None, None]
        spread = (mel - mean).where(sound, 0).square().sum(1, keepdim=True) / (frames[:, None, None] - 1)
        normal = ((mel - mean) / (spread + 1e-7).sqrt()).where(sound, 0)
        stacked = normal.unflatten(1, (-1, self.stride)).flatten(2)
        # A stacked frame counts when its last part is sound.
        return Features(stacked, below(frames // self.stride, stacked.shape[1]), frames // self.stride)

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        states, _ = self.module.feature_projection(features.values.to(self.dtype))
        return states.masked_fill(~below(features.lengths, states.shape[1])[..., None], 0.0)

    def _side(self, features: Features, states: Tensor) -> dict[str, Any]:
        return {
            **super()._side(features, states),
            "conv_attention_mask": below(features.lengths, states.shape[1]),
        }


class Wav2Vec2Conformer(Conformer):
    """Wav2Vec2-Conformer: the waveform itself, normalised per clip."""

    stack = Stack("encoder.layers", _ROWS, final_norm="encoder.layer_norm", told=told.conformer)
    model_types = ("wav2vec2-conformer",)
    holders: ClassVar = {"Wav2Vec2ConformerModel": ""}
    min_samples = 800  # a state needs 400, and convolutions over a single state have nothing around them

    @classmethod
    def load(cls, folder: Path) -> Any:
        from transformers import Wav2Vec2ConformerModel

        return load(Wav2Vec2ConformerModel, folder)

    @classmethod
    def tiny_module(cls) -> Any:
        from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

        return Wav2Vec2ConformerModel(
            Wav2Vec2ConformerConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                conv_dim=[16] * 7,
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=4,
                conv_depthwise_kernel_size=7,
                position_embeddings_type="relative",
                feat_extract_norm="layer",
            )
        )

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        sound = below(lengths, audio.shape[1])
        if self.settings.get("do_normalize", True):
            mean = audio.sum(1, keepdim=True) / lengths[:, None]
            spread = (audio - mean).where(sound, 0).square().sum(1, keepdim=True) / lengths[:, None]
            audio = ((audio - mean) / (spread + 1e-7).sqrt()).where(sound, 0)
        return Features(
            audio, sound, self.module._get_feat_extract_output_lengths(lengths, add_adapter=False)
        )

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        module = self.module
        heard = module.feature_extractor(features.values.to(self.dtype)).transpose(1, 2)
        states, _ = module.feature_projection(heard)
        return states.masked_fill(~below(features.lengths, states.shape[1])[..., None], 0.0)

    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        if not self.layer:
            states = self.module.encoder.layer_norm(states)
        return super()._finish(states, features)

    def _idle(self) -> list[nn.Module]:
        return [*super()._idle(), *([self.module.encoder.layer_norm] if self.layer else [])]


def families() -> dict[str, type[Conformer]]:
    """By the model type in their config, those of other files too."""
    BACKBONES.names()  # which imports every backbone
    return {family.model_types[0]: family for family in Conformer.__subclasses__()}
