"""Channels that cancel each other are heard all the same."""

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.audio.mixing import Mixer
from tests.sounds import noise, sound_file


@pytest.mark.parametrize("other", [-1.0, -0.98])
def test_channels_that_cancel_each_other_are_heard_with_a_note(tmp_path, other):
    mono = noise(2.0, rate=16_000)
    sound_file(tmp_path / "a.wav", np.stack([mono, other * mono], 1), 16_000, subtype="FLOAT")
    clip = io.load(tmp_path / "a.wav")
    assert np.array_equal(clip.samples, mono)
    assert any("cancel" in note for note in clip.notes)


@pytest.mark.parametrize("channels", [2, 3, 16])
def test_other_channels_are_mixed_without_a_note(channels):
    independent = np.stack([noise(0.5, seed=seed) for seed in range(channels)], 1)
    one_alone = independent * np.eye(channels)[0]
    same = np.repeat(independent[:, :1], channels, 1)
    silent = np.zeros((100, channels), np.float32)
    for block in (independent, one_alone, same, silent):
        mixer = Mixer()
        assert np.allclose(mixer(block.astype(np.float32)), block.mean(1), atol=1e-6)
        assert mixer.notes == ()


def test_the_polarity_stays_while_channels_are_about_equally_loud():
    mixer, mono = Mixer(), noise(0.1)
    first = mixer(np.stack([mono, -0.999 * mono], 1))
    second = mixer(np.stack([0.999 * mono, -mono], 1))
    assert np.dot(first, second) > 0
