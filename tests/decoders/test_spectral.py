"""Losses on spectra and by judges: zero where nothing is wrong, and falling the right way."""

import pytest
import torch

from speech_peft.audio.mel import slaney_filters
from speech_peft.backbones.mel import mel_filters
from speech_peft.decoders.discriminators import Discriminators, feature_matching, judge_loss, maker_loss
from speech_peft.decoders.spectral import (
    MIIPHER2,
    CompressedSpectrum,
    MelDistance,
    MultiResolutionStft,
    averaged,
    resolutions_at,
    spectral_convergence,
)

LOSSES = [
    lambda made, clean: sum(MultiResolutionStft(16000)(made, clean).values()),
    MelDistance(16000),
    CompressedSpectrum(16000),
]


@pytest.mark.parametrize("loss", LOSSES, ids=["stft", "mel", "compressed"])
def test_a_spectral_loss_is_zero_for_the_same_and_grows_with_noise(loss):
    clean, noise = torch.randn(2, 8000) * 0.1, torch.randn(2, 8000) * 0.1
    little, much = loss(clean + 0.1 * noise, clean), loss(clean + noise, clean)
    assert float(loss(clean, clean)) == pytest.approx(0, abs=1e-6)
    assert 0 < little < much


@pytest.mark.parametrize("loss", LOSSES, ids=["stft", "mel", "compressed"])
def test_silence_has_a_finite_loss_and_gradient(loss):
    made = torch.zeros(1, 100, requires_grad=True)
    loss(made, torch.zeros(1, 100)).backward()
    loss(made, torch.randn(1, 100)).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()


def test_convergence_is_the_share_that_is_missed():
    wanted = torch.rand(3, 5, 7)
    assert spectral_convergence(torch.zeros_like(wanted), wanted) == pytest.approx(1, abs=1e-4)
    assert spectral_convergence(1.25 * wanted, wanted) == pytest.approx(0.25, abs=1e-4)


def test_only_the_compressed_spectrum_minds_phase():
    clean = torch.randn(1, 8000) * 0.1
    assert CompressedSpectrum(16000)(-clean, clean) > 0.1
    assert CompressedSpectrum(16000, with_phase=0.0)(-clean, clean) == pytest.approx(0, abs=1e-6)


def test_the_compressed_spectrum_does_not_mind_the_level():
    clean, noise = torch.randn(1, 8000) * 0.1, torch.randn(1, 8000) * 0.03
    loud, quiet = (CompressedSpectrum(16000)(g * (clean + noise), g * clean) for g in (1.0, 0.1))
    assert loud == pytest.approx(float(quiet), rel=1e-3)


def test_resolutions_keep_their_seconds():
    assert resolutions_at(24000) == MIIPHER2
    assert resolutions_at(48000)[0] == (1024, 480, 100)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_no_band_of_a_mel_distance_is_empty(rate):
    for bands, n_fft in ((20, 512), (80, 1024), (160, 2048)):
        assert mel_filters(rate, n_fft, bands).sum(1).min() > 0


def test_a_mel_distance_has_filters_of_its_own_and_nobody_changes_those_that_all_share():
    own = mel_filters(16000, 512, 20)
    own.zero_()
    assert mel_filters(16000, 512, 20).max() > 0
    with pytest.raises(ValueError, match="read-only"):
        slaney_filters(16000, 512, 20)[0, 0] = 1.0


def test_a_loss_is_averaged_over_the_estimates():
    estimates = [torch.zeros(1, 4), torch.ones(1, 4), 5 * torch.ones(1, 4)]
    assert averaged(estimates, torch.mean) == 2


# ---- judges -------------------------------------------------------------------------------------------


def judges():
    return Discriminators(scales=2, periods=(2, 3, 5), scale_channels=4, period_channels=4)


@pytest.mark.parametrize("samples", [100, 3001])
def test_all_scales_and_periods_judge(samples):
    found = judges()(torch.randn(2, samples))
    assert len(found) == 5
    assert all(j.score.isfinite().all() and len(j.features) > 1 for j in found)


def test_judges_learn_to_tell_tones_from_noise():
    torch.manual_seed(1)
    critics = judges()
    optimiser = torch.optim.Adam(critics.parameters(), lr=3e-3)
    tone, noise = (0.1 * torch.arange(1000)).sin()[None], torch.randn(1, 1000)
    first = judge_loss(critics(tone), critics(noise)).item()
    for _ in range(15):
        loss = judge_loss(critics(tone), critics(noise))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert first == pytest.approx(2, abs=0.5)  # undecided
    assert loss < 0.5 * first
    assert maker_loss(critics(noise)) > maker_loss(critics(tone))


def test_features_match_where_waveforms_do_and_teach_the_maker_alone():
    critics, clean = judges(), torch.randn(1, 1000, requires_grad=True)
    made = torch.randn(1, 1000, requires_grad=True)
    assert feature_matching(critics(clean), critics(clean.detach())).item() == pytest.approx(0, abs=1e-7)
    feature_matching(critics(clean), critics(made)).backward()
    assert clean.grad is None
    assert made.grad is not None
    assert made.grad.any()
