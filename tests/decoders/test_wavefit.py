"""What makes WaveFit WaveFit: gain, detachment, steps, noise, film."""

import math

import pytest
import torch

from speech_peft.decoders.wavefit import CEPSTRUM, minimum_phase_envelope, power
from speech_peft.decoders.waveform import build_decoder
from speech_peft.errors import ConfigError

DIM = 12
SMALL = {
    "sample_rate": 16000,
    "steps": 3,
    "factors": (5, 4, 4, 2),
    "up": (16, 16, 8, 8),
    "down": (8, 8, 16),
    "before": 1,
    "channels": 16,
    "mels": 40,
}


def small(**fields):
    return build_decoder(DIM, 50.0, name="wavefit", **{**SMALL, **fields})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_estimate_has_the_power_that_the_states_say():
    decoder, states = small(), torch.randn(2, 12, DIM)
    wanted = power(decoder.magnitudes(decoder._read(states)[1]))
    for made in decoder.estimates(states, generator=seeded()):
        size = decoder._spectrum(made).abs()
        torch.testing.assert_close(size.square().mean((1, 2)), wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize("noise", ["white", "specgrad"])
def test_a_louder_mel_makes_a_waveform_as_much_louder(noise):
    decoder, states = small(noise=noise), torch.randn(1, 12, DIM)
    before = power(decoder._spectrum(decoder(states, generator=seeded(), steps=1)).abs())
    with torch.no_grad():
        decoder.to_mel.bias += 2.0
    after = power(decoder._spectrum(decoder(states, generator=seeded(), steps=1)).abs())
    assert (after / before).item() == pytest.approx(math.exp(2 * 2.0), rel=0.01)


def test_no_gradient_flows_from_one_step_into_the_one_before():
    decoder = small()
    start = torch.randn(1, 1600, requires_grad=True)
    made = decoder.refine(start, torch.randn(1, 10, 16), torch.ones(1), steps=2)
    assert torch.autograd.grad(made[0].square().sum(), start, retain_graph=True)[0].any()
    assert torch.autograd.grad(made[1].sum(), start, allow_unused=True)[0] is None


def test_later_steps_refine_what_earlier_ones_made():
    decoder, states = small(), torch.randn(1, 6, DIM)
    three = decoder.estimates(states, generator=seeded(), steps=3)
    for steps in (1, 2):
        torch.testing.assert_close(decoder(states, generator=seeded(), steps=steps), three[steps - 1])
    assert len(decoder.estimates(states, generator=seeded(), steps=7)) == 7  # more than it was trained for


def test_states_are_repeated_up_to_the_rate_of_the_network():
    decoder = small()
    assert decoder.repeat == 2
    assert build_decoder(DIM, 25.0, name="wavefit", **SMALL).repeat == 4
    with pytest.raises(ConfigError, match="do not fit the 320"):
        small(factors=(7, 2, 2, 2))


def test_light_film_lacks_the_longest_link_alone():
    light, full = (
        sum(p.numel() for p in small(film=film).generator.film.parameters()) for film in ("light", "full")
    )
    assert len(small(film="full").generator.film) == len(small().generator.film) + 1
    assert light < full


def test_it_is_as_large_as_published():
    network = build_decoder(128, 100.0, name="wavefit", channels=128, before=0, film="full").generator
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(15.3e6, rel=0.1)


def test_noise_takes_the_envelope_of_the_mel():
    decoder = small(noise="specgrad")
    bins = decoder.resolution.n_fft // 2 + 1
    low = torch.full((1, bins, 100), 1e-3)
    low[:, : bins // 4] = 1.0
    noise = decoder.initial_noise(low, seeded())
    spectrum = decoder._spectrum(noise).abs().mean(-1)[0]
    assert spectrum[: bins // 5].mean() > 20 * spectrum[bins // 3 :].mean()
    white = small(noise="white").initial_noise(low, seeded())
    assert white.std() == pytest.approx(1.0, abs=0.05)


def test_the_filter_of_the_noise_has_the_smooth_envelope_and_least_delay():
    sizes = torch.rand(1, 257, 3) + 0.1
    cepstrum = torch.fft.irfft(sizes.log(), dim=1)
    cepstrum[:, CEPSTRUM : 512 - CEPSTRUM + 1] = 0
    found = minimum_phase_envelope(sizes)
    torch.testing.assert_close(found.abs().log(), torch.fft.rfft(cepstrum, dim=1).real, atol=1e-4, rtol=0)
    response = torch.fft.irfft(found, dim=1).square()
    assert (response[:, :64].sum(1) > 0.99 * response.sum(1)).all()


def test_the_mel_that_is_read_is_that_of_the_clean_waveform():
    decoder, states = small(), torch.randn(1, 10, DIM)
    clean = torch.randn(1, 3200) * 0.1
    wanted = (decoder.filters @ decoder._spectrum(clean).abs()).log()
    with torch.no_grad():
        decoder.to_mel.weight.zero_()
        decoder.to_mel.bias.fill_(float(wanted.mean()))
    found = decoder.own_losses(states, clean)["log_mel"]
    torch.testing.assert_close(found, (wanted - wanted.mean()).abs().mean(), atol=1e-3, rtol=0)
    # … of as much of it as there is
    assert decoder.own_losses(states, clean[:, :1600])["log_mel"].isfinite()
