"""A small mel diffusion of our own: noise to spectrograms of a class, and a place for adapters.

Features are log-mel spectrograms, 100 frames a second, of which two lie one behind the other: 50 states a
second. `module(noisy, time, classes)` takes noise out of features; `decoders/mel_diffusion` walks down from
pure noise. `encode` gives what the blocks make of a recording without noise, told no class.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import BACKBONES
from .base import Backbone, Encoded, Features
from .checkpoints.checkpoint import load
from .checkpoints.weights import Origin
from .frames import below
from .mel import mel_filters
from .stack import Row, Stack

FFT, HOP = 512, 160  # 32 ms every 10 ms: a longer window would smear an onset
_FLOOR = 1e-4  # of power: what is softer is silence
_ROWS = (
    Row("block", "block", "{b}"),
    Row("attn", "attn", "{b}.attn"),
    *(Row(f"attn.{n}", "linear", f"{{b}}.attn.{n}_proj") for n in "qkvo"),
    Row("cross", "cross", "{b}.cross"),
    *(Row(f"cross.{n}", "linear", f"{{b}}.cross.{n}_proj") for n in "qkvo"),
    Row("ffn", "ffn", "{b}.ffn"),
    Row("ffn.up", "linear", "{b}.ffn.fc1"),
    Row("ffn.down", "linear", "{b}.ffn.fc2"),
)


@BACKBONES.register("mel_diffusion")
class MelDiffusion(Backbone):
    """MelDenoiser; what goes in and comes out are spectrograms, frame by frame."""

    stacks: Sequence[Stack] = (Stack("blocks", _ROWS),)  # each frame is one of the sound that is made
    model_types = ("mel_diffusion",)
    feature_axes = (1, 2)

    def __init__(self, module: Any, origin: Origin):
        config = module.config
        self.dim, self.depth = config.hidden_size, config.num_hidden_layers
        self.stacked_frames = config.stacked_frames
        self.frame_rate = self.sample_rate / HOP / self.stacked_frames
        self.min_samples = HOP * self.stacked_frames
        self.filters = mel_filters(self.sample_rate, FFT, config.num_mel_bins)
        super().__init__(module, origin, {})

    @classmethod
    def open(cls, folder: Path, origin: Origin) -> "MelDiffusion":
        from .networks.mel_denoiser import MelDenoiser

        return cls(load(MelDenoiser, folder), origin)

    @classmethod
    def tiny(cls, seed: int, classes: Sequence[str] = ("one", "two", "three")) -> "MelDiffusion":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_mel_bins": 16}
        backbone = cls(
            untrained(classes, **sizes, intermediate_size=64), Origin("tiny:mel_diffusion", f"seed {seed}")
        )
        # Fresh gates are shut, and behind them no adapter would be heard.
        for parameter in backbone.module.parameters():
            nn.init.normal_(parameter, std=0.2)
        return backbone

    @property
    def blocks(self) -> nn.ModuleList:
        return self.module.blocks

    @property
    def classes(self) -> tuple[str, ...]:
        """What it can be told to make."""
        return tuple(self.module.config.id2label.values())

    def numbers_of(self, classes: Sequence[str | None]) -> Int[Tensor, " b"]:
        """The number of each class, -1 for none; raises ConfigError for one that it was not made for."""
        known = self.classes
        for name in classes:
            if name is not None and name not in known:
                raise ConfigError(f"no class is called {name!r}; this mel_diffusion has {', '.join(known)}")
        return torch.tensor([-1 if name is None else known.index(name) for name in classes])

    def padded_samples(self, samples: int) -> int:
        return -(-samples // self.min_samples) * self.min_samples

    def frames_of(self, seconds: float) -> int:
        """How many states a sound of this length has."""
        return self.padded_samples(round(seconds * self.sample_rate)) // self.min_samples

    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        window = torch.hann_window(FFT, device=audio.device)
        spectrum = torch.stft(audio, FFT, HOP, window=window, pad_mode="constant", return_complex=True)
        power = spectrum.abs().square()[..., : audio.shape[1] // HOP]
        log = (self.filters.to(audio.device) @ power).clamp_(min=_FLOOR).log_().transpose(1, 2)
        config = self.module.config
        stacked = ((log - config.mean) / config.std).unflatten(1, (-1, self.stacked_frames)).flatten(2)
        return Features(stacked, None, -(-lengths // self.min_samples))

    def power_of(self, values: Float[Tensor, "b t w"]) -> Float[Tensor, "b n m"]:
        """The mel power of features, frame by frame: the way back."""
        config = self.module.config
        return (
            (values.float() * config.std + config.mean)
            .unflatten(2, (self.stacked_frames, -1))
            .flatten(1, 2)
            .exp()
        )

    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        return self.module.entered(features.values.to(self.dtype))

    def _side(self, features: Features, states: Float[Tensor, "b t d"]) -> dict[str, Any]:
        rows = torch.zeros(len(states), device=states.device)
        time, tokens = self.module.told(rows, rows.long() - 1)
        return {"time": time, "tokens": tokens}

    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        return Encoded(states, below(features.lengths, states.shape[1]))


def untrained(classes: Sequence[str], seed: int = 0, **sizes: Any) -> Any:
    """A MelDenoiser that has learned nothing yet, for these classes; `save_pretrained` writes its folder.

    Raises ConfigError where a class is named twice, or none is.
    """
    from .networks.mel_denoiser import MelDenoiser, MelDenoiserConfig

    if not classes or len(set(classes)) < len(classes):
        raise ConfigError(f"a mel diffusion is made for classes, each named once; got {list(classes)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        names = {"id2label": dict(enumerate(classes)), "label2id": {c: i for i, c in enumerate(classes)}}
        return MelDenoiser(MelDenoiserConfig(**names, **sizes))
