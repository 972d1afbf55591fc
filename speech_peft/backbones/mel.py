"""Filters on the mel scale: Slaney's triangles, and Kaldi's log-mel filter bank, of AST and w2v-BERT."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..audio.mel import slaney_filters

FRAME, HOP, FFT = 400, 160, 512  # 25 ms every 10 ms at 16 kHz
_FLOOR = torch.finfo(torch.float32).eps


class KaldiMel:
    """Windows without their mean, pre-emphasis, power spectrum, triangles on the mel scale, natural log."""

    def __init__(self, bins: int, window: str, scale: float, sample_rate: int = 16000):
        from transformers.audio_utils import mel_filter_bank, window_function

        self.scale = scale
        self.window = torch.from_numpy(window_function(FRAME, window, periodic=False)).float()
        filters = mel_filter_bank(
            num_frequency_bins=FFT // 2 + 1,
            num_mel_filters=bins,
            min_frequency=20,
            max_frequency=sample_rate // 2,
            sampling_rate=sample_rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        self.filters = torch.from_numpy(filters).float()

    def __call__(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b t m"]:
        window, filters = self.window.to(audio.device), self.filters.to(audio.device)
        frames = (audio * self.scale).unfold(1, FRAME, HOP)
        frames = frames - frames.mean(-1, keepdim=True)
        previous = torch.cat((frames[..., :1], frames[..., :-1]), -1)
        spectrum = torch.fft.rfft((frames - 0.97 * previous) * window, FFT)
        power = torch.view_as_real(spectrum).square().sum(-1)
        return (power @ filters).clamp_(min=_FLOOR).log_()


def frames_of(samples: Tensor) -> Tensor:
    """How many windows fit into clips of so many samples."""
    return (samples - FRAME) // HOP + 1


def mel_filters(sample_rate: int, n_fft: int, bands: int) -> Float[Tensor, "m f"]:
    """Slaney's triangles over the bins of a spectrum, of one area each, from 0 Hz to half the rate."""
    return torch.from_numpy(slaney_filters(sample_rate, n_fft, bands).copy()).float()
