"""Augmentation changes what is heard and never takes all of it away."""

import pytest
import torch

from speech_peft.backbones.base import Features
from speech_peft.backbones.families import tiny
from speech_peft.recipe.parts import SpecAugmentConfig
from speech_peft.train.data import augment


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_shifted_clip_is_rotated_within_its_own_length():
    audio = torch.zeros(8, 100)
    lengths = torch.tensor([100, 60, 100, 40, 7, 1, 100, 100])
    for row, length in zip(audio, lengths.tolist(), strict=True):
        row[:length] = torch.arange(1, length + 1)
    shifted = augment.shift(audio, lengths, 30, seeded())
    for before, after, length in zip(audio, shifted, lengths.tolist(), strict=True):
        assert not after[length:].any()
        start = int(after[:length].argmin())  # where the 1 went
        assert torch.equal(after[:length].roll(-start), before[:length])
        assert min(start, length - start) <= 30
    assert not torch.equal(shifted, audio)


def test_a_mix_is_the_same_mix_of_sounds_and_of_targets():
    audio, target = torch.randn(6, 50), torch.eye(6)
    lengths = torch.tensor([50, 10, 20, 30, 40, 50])
    for row, length in zip(audio, lengths.tolist(), strict=True):
        row[length:] = 0
    mixed, longer, soft = augment.mixup(audio, lengths, target, 0.4, seeded())
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    torch.testing.assert_close(soft @ audio, mixed)  # one label each: the shares of the sounds
    for row, length in zip(soft, longer.tolist(), strict=True):
        assert length == max(lengths[row > 0].tolist())


@pytest.mark.parametrize("axes", [(1, 2), (2, 1)])
@pytest.mark.parametrize("masks", [1, 4])
def test_stripes_leave_half_of_every_clip_and_all_of_the_padding(axes, masks):
    values = 5 + torch.randn(16, 40, 80) if axes == (1, 2) else 5 + torch.randn(16, 80, 40)
    config = SpecAugmentConfig(time_masks=masks, time_width=1000, freq_masks=masks, freq_width=1000)
    heard = torch.linspace(0.05, 1.0, 16)
    features = Features(values, None, torch.full((16,), 40))
    found = augment.spec_augment(features, heard, augment.Spectrogram(axes), config, seeded()).values
    changed = (found != values) if axes == (1, 2) else (found != values).transpose(1, 2)
    for clip, share in zip(changed, heard.tolist(), strict=True):
        extent = int(-(-share * 40 // 1))
        assert not clip[extent:].any()
        assert clip[:extent].all(1).float().mean() <= 0.5
        assert clip[:extent].all(0).float().mean() <= 0.5
    assert changed.any()


def test_a_stripe_is_set_to_the_mean_of_what_the_clip_has():
    values = torch.randn(1, 40, 80)
    config = SpecAugmentConfig(time_masks=1, time_width=20, freq_masks=0)
    shape = augment.Spectrogram((1, 2))
    for seed in range(5):
        features = Features(values, None, torch.tensor([40]))
        found = augment.spec_augment(features, torch.tensor([0.5]), shape, config, seeded(seed)).values
        hidden = found != values
        assert hidden.any() or seed
        torch.testing.assert_close(found[hidden], values[:, :20].mean().expand(int(hidden.sum())))


def test_bins_of_stacked_frames_are_hidden_together():
    values = torch.randn(4, 30, 160)
    config = SpecAugmentConfig(time_masks=0, freq_masks=2, freq_width=20)
    shape = augment.Spectrogram((1, 2), stacked=2)
    features = Features(values, None, torch.full((4,), 30))
    hidden = augment.spec_augment(features, torch.ones(4), shape, config, seeded()).values != values
    assert torch.equal(hidden[..., :80], hidden[..., 80:])
    assert hidden.any()


@pytest.mark.parametrize("name", ["whisper", "ast", "conformer", "usm"])
def test_a_backbone_says_which_axes_of_its_features_are_which(name):
    backbone = tiny(name)
    short, long = (
        backbone.prepare(torch.randn(1, n), torch.tensor([n])).values.shape for n in (16000, 32000)
    )
    time, bins = backbone.feature_axes
    assert short[bins] == long[bins]
    assert short[bins] % backbone.stacked_frames == 0
    if short[time] == long[time]:  # a fixed window
        assert backbone.context == "full"
    assert {time, bins} == {1, 2}


def test_a_backbone_that_hears_the_waveform_has_no_axes():
    assert tiny("conformer", family="wav2vec2-conformer").feature_axes is None
