"""Distances of states and waveforms: their worth and their slopes where both are equal or silent."""

import pytest
import torch

from speech_peft.recipe.tasks import FeatureLosses, WaveformLosses
from speech_peft.train.tasks.distance import WaveformDistance, feature_distance, noise_to_speech


def test_features_are_l1_plus_squared_l2_plus_convergence_over_the_frames_with_sound():
    made, clean = torch.full((1, 3, 2), 5.0), torch.full((1, 3, 2), 3.0)
    made[0, 2] = 100.0  # padding
    mask = torch.tensor([[True, True, False]])
    loss, relative = feature_distance(made, clean, mask, FeatureLosses())
    assert loss.item() == pytest.approx(2 + 4 + 2 / 3)
    assert relative.item() == pytest.approx(2 / 3)


def test_equal_states_have_a_slope_that_is_a_number():
    states = torch.randn(2, 3, 4)
    made = states.clone().requires_grad_()
    feature_distance(made, states, torch.ones(2, 3, dtype=torch.bool), FeatureLosses())[0].sum().backward()
    assert torch.isfinite(made.grad).all()


def test_sdr_is_in_tens_of_decibels_and_silent_clips_have_none():
    clean = torch.randn(2, 1000)
    clean[1] = 0.0
    wrong = clean[:1] + 0.1 * clean[:1]
    loss = noise_to_speech(torch.cat([wrong, torch.ones(1, 1000)]), clean)
    assert loss.item() == pytest.approx(-2, abs=0.05)


@pytest.mark.parametrize("clip", ["speech", "silence"])
def test_a_waveform_equal_to_the_clean_one_has_finite_slopes(clip):
    clean = torch.randn(1, 4000) * (clip == "speech")
    made = clean.clone().requires_grad_()
    distance = WaveformDistance(WaveformLosses(mel=1, compressed=1, sdr=1), 16000)
    distance(made, clean).backward()
    assert torch.isfinite(made.grad).all()
