"""DDIM: exact where the denoiser is, and the same in however many steps at a time it is told to be."""

import itertools
import math

import pytest
import torch

from speech_peft.decoders.mel_diffusion.sample import Sampling, sample
from speech_peft.decoders.mel_diffusion.schedule import ddim, noised, times
from speech_peft.errors import ConfigError

X = torch.linspace(-1, 2, 12).view(1, 3, 4)
NOISE = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))


def exact(z, time):
    """What a network says that knows the only sound there is."""
    a, s = math.cos(math.pi / 2 * time), math.sin(math.pi / 2 * time)
    noise = (z - a * X) / max(s, 1e-9)
    return (a * noise - s * X)[None]


def pulled(z, time):
    """What one says of sounds spread evenly around X, which makes a path that bends."""
    a, s = math.cos(math.pi / 2 * time), math.sin(math.pi / 2 * time)
    x = X + 0.25 * a * (z - a * X) / (0.25 * a * a + s * s)
    return (((z - a * x) / max(s, 1e-9)) * a - s * x)[None]


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_with_an_exact_denoiser_noise_becomes_the_sound(steps):
    torch.testing.assert_close(sample(exact, NOISE, Sampling(steps)), X, rtol=0, atol=1e-4)


def test_a_step_undoes_the_noise_that_was_put_in():
    noisy, v = noised(X, NOISE, torch.tensor([0.6]))
    torch.testing.assert_close(ddim(noisy, v, 0.6, 0.0), X)
    less, _ = noised(X, NOISE, torch.tensor([0.2]))
    torch.testing.assert_close(ddim(noisy, v, 0.6, 0.2), less)


def test_one_step_at_a_time_is_ddim_by_hand_to_the_bit():
    state, at = NOISE, times(10)
    for now, then in itertools.pairwise(at):
        state = ddim(state, pulled(state, now)[0], now, then)
    assert torch.equal(sample(pulled, NOISE, Sampling(10)), state)


def test_steps_taken_together_come_near_and_nearer_the_more_there_are():
    def off(steps: int, degree: int) -> float:
        alone, together = (sample(pulled, NOISE, Sampling(steps, 1.0, p, warmup=5)) for p in (1, degree))
        return float((alone - together).abs().max())

    assert off(40, 1) == 0.0
    assert off(80, 4) < off(20, 4) < 0.2
    assert off(80, 2) < off(80, 8)


def test_guidance_goes_on_from_untold_through_told():
    def both(z, time):
        told = exact(z, time)[0]
        return torch.stack([told, told - 1])

    plain = sample(lambda z, t: both(z, t)[:1], NOISE, Sampling(1, guidance=1))
    guided = sample(both, NOISE, Sampling(1, guidance=3))
    torch.testing.assert_close(guided, plain - 2)  # at t = 1 the sound is -v


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"guidance": -1.0}, {"degree": 0}])
def test_what_cannot_be_walked_is_refused(wrong):
    with pytest.raises(ConfigError):
        sample(exact, NOISE, Sampling(**wrong))
