"""Whisper: encoder and decoder, over its native 30 s or over the audio there is.

Stock Whisper pads every clip to 30 s. With `context="fit"` the encoder reads only what a batch holds, rounded
up to a grid: same modules, the first rows of the sinusoid table. Untrained this makes Whisper loop; adapters
trained so make it ten times as fast on short clips, and their files record which of the two they belong to.

Whisper's encoder masks nothing, so what a clip is padded with reaches its states: results are independent of
the rest of a batch only when its clips share one length of the grid (`padded_samples`).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ConfigError
from ..files import json_text
from ..registry import BACKBONES
from .base import Backbone, Encoded, Features, truncated
from .checkpoints.checkpoint import load, made
from .checkpoints.weights import Origin
from .frames import below
from .positions import Positions, positions
from .stack import Row, Stack
from .whisper_tokens import Generation as Generation
from .whisper_tokens import check_ids, generation_of, tiny_tokenizer, tokenizer_of

GRID_SECONDS = 0.5
FRAME_SAMPLES = 320  # of one encoder state: two mel frames, halved by the second convolution
Context = Literal["full", "fit"]

_KEYS = ("{b}.self_attn_layer_norm", "{b}.self_attn.k_proj", "{b}.self_attn.v_proj")
_SUBLAYERS = (
    Row("block", "block", "{b}", keys=_KEYS),
    Row("tail", "tail", "{b}.fc1", "{b}"),
    Row("attn", "attn", "{b}.self_attn"),
    *(Row(f"attn.{n}", "linear", f"{{b}}.self_attn.{n}_proj") for n in "qkv"),
    Row("attn.o", "linear", "{b}.self_attn.out_proj"),
    Row("norm_attn", "norm", "{b}.self_attn_layer_norm"),
    Row("ffn", "ffn", "{b}.fc1", "{b}.fc2"),
    Row("ffn.up", "linear", "{b}.fc1"),
    Row("ffn.down", "linear", "{b}.fc2"),
    Row("norm_ffn", "norm", "{b}.final_layer_norm"),
)
_CROSS = (
    Row("cross", "cross", "{b}.encoder_attn"),
    *(Row(f"cross.{n}", "linear", f"{{b}}.encoder_attn.{n}_proj") for n in "qkv"),
    Row("cross.o", "linear", "{b}.encoder_attn.out_proj"),
    Row("norm_cross", "norm", "{b}.encoder_attn_layer_norm"),
)
STACKS = (
    # No mask, and positions are added before the first block: frames may come and go inside these sites.
    Stack(
        "model.encoder.layers",
        _SUBLAYERS,
        frozenset({"stack", "block", "attn"}),
        "model.encoder.layer_norm",
        front=(("conv1", "model.encoder.conv1"), ("conv2", "model.encoder.conv2")),
    ),
    # The decoder's causal mask and cache count tokens.
    Stack(
        "model.decoder.layers",
        (*_SUBLAYERS, *_CROSS),
        frozenset(),
        "model.decoder.layer_norm",
        "decoder.",
        causal=True,
    ),
)


@BACKBONES.register("whisper")
class Whisper(Backbone):
    """WhisperForConditionalGeneration; `context` is "full" (stock) or "fit" (the length of the audio).

    Of a `fit` one `positions` says what becomes of the table of positions (`positions.py`), and `longest` how
    many seconds it hears at most, where that is more than its native 30.
    `layer` stops after that encoder block, counted from 1, and gives its states raw; nothing is decoded then.
    """

    frame_rate: float = 50.0
    min_samples = FRAME_SAMPLES  # one state, so that a decoder has something to look at
    feature_axes = (2, 1)
    # The position table is sinusoids, and the projection to tokens is the decoder's embedding.
    unread = ("model.encoder.embed_positions.", "proj_out.")
    stacks: Sequence[Stack] = STACKS
    model_types = ("whisper",)
    holders: ClassVar = {"WhisperEncoder": "model.encoder", "WhisperDecoder": "model.decoder"}
    contexts: ClassVar[tuple[str, ...]] = get_args(Context)

    def __init__(
        self,
        module: Any,
        tokenizer: Any,
        generation: Generation,
        origin: Origin,
        context: str = "full",
        layer: int | None = None,
        positions: str = "cut",
        longest: float | None = None,
    ):
        if context not in self.contexts:
            raise ConfigError(f"backbone.context: {context!r} is neither 'full' nor 'fit'")
        self.context, self.tokenizer, self.generation = context, tokenizer, generation
        self.dim, self.layer = module.config.d_model, layer
        self.depth = truncated(layer, module.config.encoder_layers)
        encoder, decoder = STACKS
        self.stacks = (encoder.without_final_norm() if layer else encoder, decoder)
        self.native = module.config.max_source_positions / self.frame_rate
        self.positions, self.max_seconds = positions, longest or self.native
        self._check_lengths()
        self._mel = _LogMel(module.config.num_mel_bins)
        more: dict[str, Any] = {"layer": layer} if layer else {}
        more |= {"positions": positions} if positions != "cut" else {}
        more |= {"longest": longest} if longest else {}
        super().__init__(module, origin, {"context": context, **more})

    def _check_lengths(self) -> None:
        if self.positions not in get_args(Positions):
            known = ", ".join(get_args(Positions))
            raise ConfigError(f"backbone.positions: {self.positions!r} is none of {known}")
        if self.context == "full" and (self.positions != "cut" or self.max_seconds != self.native):
            raise ConfigError(
                "backbone.positions, longest: the full context has one length; give context=fit"
            )
        if self.positions == "cut" and self.max_seconds > self.native:
            raise ConfigError(
                f"backbone.longest: positions are known for {self.native:g} s; give positions=extended"
            )

    @property
    def native_seconds(self) -> float:
        return self.native

    @classmethod
    def open(
        cls,
        folder: Path,
        origin: Origin,
        context: str = "full",
        layer: int | None = None,
        positions: str = "cut",
        longest: float | None = None,
    ) -> "Whisper":
        from transformers import GenerationConfig, WhisperForConditionalGeneration

        module = load(WhisperForConditionalGeneration, folder)
        tokenizer = tokenizer_of(folder)
        path = folder / "generation_config.json"
        settings = made(GenerationConfig, json_text.read_object(path) if path.is_file() else {}, path)
        try:
            generation = generation_of(tokenizer, settings)
            check_ids(generation, module.config)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"weights: {folder}: the tokenizer and generation_config.json are not of this model: {error}"
            ) from None
        return cls(module, tokenizer, generation, origin, context, layer, positions, longest)

    @classmethod
    def tiny(
        cls,
        seed: int,
        context: str = "full",
        seconds: float = 30.0,
        layer: int | None = None,
        positions: str = "cut",
        longest: float | None = None,
    ) -> "Whisper":
        """`seconds` shortens the native window, so that tests of the full context stay quick."""
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        tokenizer = tiny_tokenizer()
        end, start = (tokenizer.convert_tokens_to_ids(t) for t in ("<|endoftext|>", "<|startoftranscript|>"))
        config = WhisperConfig(
            vocab_size=len(tokenizer) + 1501,
            d_model=32,
            num_mel_bins=80,
            max_source_positions=round(seconds * 50),
            max_target_positions=448,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            decoder_start_token_id=start,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
        module = WhisperForConditionalGeneration(config)
        generation = Generation(
            sot=start,
            eot=end,
            no_timestamps=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
            timestamp_begin=len(tokenizer),
            start_of_previous=tokenizer.convert_tokens_to_ids("<|startofprev|>"),
            no_speech=tokenizer.convert_tokens_to_ids("<|nospeech|>"),
            begin_suppress=(end,),
            alignment_heads=((1, 0), (1, 1)),
        )
        origin = Origin("tiny:whisper", f"seed {seed}")
        return cls(module, tokenizer, generation, origin, context, layer, positions, longest)

    @property
    def encoder(self) -> Any:
        return self.module.model.encoder

    @property
    def decoder(self) -> Any:
        return self.module.model.decoder

    @property
    def blocks(self) -> nn.ModuleList:
        return self.encoder.layers[: self.depth]

    def padded_samples(self, samples: int) -> int:
        full = round((self.max_seconds or 30.0) * self.sample_rate)
        grid = round(GRID_SECONDS * self.sample_rate)
        return full if self.context == "full" else min(full, max(1, math.ceil(samples / grid)) * grid)

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        return Features(self._mel(audio), None, (lengths + FRAME_SAMPLES - 1) // FRAME_SAMPLES)

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        encoder = self.encoder
        states = nn.functional.gelu(encoder.conv1(features.values.to(encoder.conv1.weight.dtype)))
        states = nn.functional.gelu(encoder.conv2(states)).permute(0, 2, 1)
        return states + positions(encoder.embed_positions.weight, states.shape[1], self.positions)

    def _side(self, features: Features, states: Tensor) -> dict[str, Any]:
        return {"attention_mask": None}

    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        if not self.layer:
            states = self.encoder.layer_norm(states)
        return Encoded(states, below(features.lengths, states.shape[1]))

    def _idle(self) -> list[nn.Module]:
        return [*super()._idle(), *([self.encoder.layer_norm] if self.layer else [])]


class _LogMel:
    """The stock extractor's log-mel spectrogram, for a batch at once and on the batch's device."""

    def __init__(self, bins: int):
        from transformers import WhisperFeatureExtractor

        stock = WhisperFeatureExtractor(feature_size=bins)
        self.size, self.hop = stock.n_fft, stock.hop_length
        self.filters = torch.from_numpy(stock.mel_filters).float().T.contiguous()
        self.window = torch.hann_window(self.size)

    def __call__(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b m t"]:
        if self.window.device != audio.device:
            self.filters, self.window = self.filters.to(audio.device), self.window.to(audio.device)
        spectrum = torch.stft(audio, self.size, self.hop, window=self.window, return_complex=True)[..., :-1]
        power = torch.view_as_real(spectrum).square().sum(-1)
        mel = (self.filters @ power).clamp_(min=1e-10).log10_()
        return mel.maximum(mel.amax((1, 2), keepdim=True) - 8.0).add_(4.0).div_(4.0)
