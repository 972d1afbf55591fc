"""Whisper's features once more, by the library whose filters its checkpoints were trained with."""

import numpy as np
import pytest
import soundfile
import torch

from speech_peft.backbones.families import tiny
from tests import tiny as corpus


@pytest.mark.slow  # librosa's first call compiles for seconds
def test_whisper_mel_equals_the_published_recipe_in_librosa(tmp_path):
    import librosa

    corpus.corpus(tmp_path, clips=1, seconds=2.0)
    samples, rate = soundfile.read(tmp_path / "0.wav", dtype="float32")
    spectrum = librosa.stft(samples, n_fft=400, hop_length=160, window="hann", pad_mode="reflect")[:, :-1]
    filters = librosa.filters.mel(sr=rate, n_fft=400, n_mels=80)
    log = np.log10(np.maximum(filters @ np.abs(spectrum) ** 2, 1e-10))
    expected = (np.maximum(log, log.max() - 8) + 4) / 4

    features = tiny("whisper", context="fit").prepare(torch.from_numpy(samples)[None], torch.tensor([32000]))
    np.testing.assert_allclose(features.values[0].numpy(), expected, atol=1e-3)
