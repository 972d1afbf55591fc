"""A waveform with a mel spectrogram that is given: magnitudes that fit, phases by Griffin and Lim."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ...backbones.mel_diffusion import FFT, HOP
from ...errors import AudioError


def waveform(
    power: Float[Tensor, "n m"], filters: Float[Tensor, "m f"], iterations: int = 32
) -> Float[np.ndarray, " s"]:
    """Samples whose mel power, frame by frame, is as near to `power` as phases allow; peak at most 1.

    The first phases are drawn from a fixed seed. Raises AudioError where a number is not finite.
    """
    from librosa import griffinlim  # here: it needs numba
    from librosa.util import nnls

    wanted = power.T.double().cpu().numpy()
    if not np.isfinite(wanted).all():
        raise AudioError("a spectrogram that was made", "holds numbers that are not finite")
    magnitudes = np.sqrt(nnls(filters.double().cpu().numpy(), wanted))
    # Frames are centred at multiples of the hop, and so many samples have one more of them.
    magnitudes = np.concatenate([magnitudes, magnitudes[:, -1:]], 1)
    made = griffinlim(
        magnitudes,
        n_iter=iterations,
        hop_length=HOP,
        n_fft=FFT,
        random_state=0,
        length=wanted.shape[1] * HOP,
        pad_mode="constant",
    )
    return (made / max(1.0, float(np.abs(made).max(initial=0.0)))).astype(np.float32)
