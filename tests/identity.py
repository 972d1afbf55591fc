"""A restorer that changes nothing: a tiny encoder and a decoder that gives back what it is given."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import write
from speech_peft.decoders.waveform import DecoderConfig, WaveformDecoder, build_decoder
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.registry import DECODERS


class Identity(DecoderConfig):
    """Times a gain, and with noise of a level."""

    name: ClassVar[str] = "identity"
    sample_rate: int = 16_000
    gain: float = 1.0
    noise: float = 0.0

    def build(self, dim: int, frame_rate: float) -> "IdentityDecoder":
        return IdentityDecoder(self, dim, frame_rate)


class IdentityDecoder(WaveformDecoder):
    name = "identity"
    needs_waveform = True

    def __init__(self, settings: Identity, dim: int, frame_rate: float):
        super().__init__(settings, dim, frame_rate)
        self.gain = nn.Parameter(torch.tensor(settings.gain))

    def _estimates(self, states, degraded, generator, steps):
        assert states.shape[1] * self.hop >= degraded.shape[1] - self.hop
        noise = torch.randn(degraded.shape, generator=generator, device=degraded.device)
        return [self.gain * degraded + self.settings.noise * noise]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub is a decoder, and every address of weights a tiny backbone, until the test ends."""
    DECODERS.names()  # found before one is added
    monkeypatch.setitem(DECODERS._things, "identity", Identity)

    def opened(name, weights, revision=None, offline=False, **options):
        return tiny(name, **options)

    monkeypatch.setattr("speech_peft.opening.loading.open_backbone", opened)


def restorer(folder: Path, name: str = "identity", **fields) -> Path:
    """The folder of an adapter with this decoder."""
    backbone = tiny("whisper", context="fit")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": Bottleneck(width=4)})
    decoder = build_decoder(backbone.dim, backbone.frame_rate, name=name, **fields)
    config = {"decoder": decoder.config()}
    return write(folder, model, "a", backbone.card(), heads={"decoder": decoder}, head_config=config)


def snr(reference: np.ndarray, found: np.ndarray) -> float:
    """dB of the reference over the difference."""
    error = float(np.square(found - reference, dtype=np.float64).sum())
    return 10 * np.log10(float(np.square(reference, dtype=np.float64).sum()) / max(error, 1e-20))


def sound(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades, (s, c): every moment differs from every other."""
    random = np.random.default_rng(seed)
    count = max(1, round(seconds * rate))
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * 0.7 * np.arange(count) / rate + random.uniform(0, 6))
    return (0.1 * swell[:, None] * random.standard_normal((count, channels))).astype(np.float32)
