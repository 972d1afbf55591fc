"""Laws of every decoder from states to a waveform, and those of the mask and the inverse transform alone."""

from copy import deepcopy

import pytest
import torch

from speech_peft.decoders.spectral import CompressedSpectrum, MultiResolutionStft
from speech_peft.decoders.waveform import build_decoder
from speech_peft.errors import ConfigError
from speech_peft.registry import DECODERS

DIM = 12
SMALL = {
    "mask": {"channels": 24, "blocks": 2},
    "map": {"channels": 16, "blocks": 2},
    "istft": {"channels": 32, "hidden": 64, "blocks": 2},
    "wavefit": {
        "sample_rate": 16000,
        "steps": 3,
        "factors": (5, 4, 4, 2),
        "up": (16, 16, 8, 8),
        "down": (8, 8, 16),
        "before": 1,
        "channels": 16,
        "mels": 20,
    },
}


def small(name, frame_rate=50.0, **fields):
    return build_decoder(DIM, frame_rate, name=name, **{**SMALL[name], **fields})


def decode(decoder, states, degraded=None, seed=0, **options):
    if degraded is None and decoder.needs_waveform:
        degraded = torch.randn(states.shape[0], states.shape[1] * decoder.hop) * 0.1
    return decoder(states, degraded, generator=torch.Generator().manual_seed(seed), **options)


@pytest.fixture(params=sorted(SMALL))
def name(request):
    return request.param


def test_every_decoder_is_tested_here():
    assert sorted(SMALL) == DECODERS.names()


@pytest.mark.parametrize("frames", [1, 7])
def test_there_is_a_hop_of_samples_for_each_state(name, frames):
    decoder = small(name)
    made = decode(decoder, torch.randn(2, frames, DIM))
    assert made.shape == (2, frames * decoder.hop)
    assert made.isfinite().all()


@pytest.mark.parametrize("samples", [1, 100, 1600, 2239, 5000])
def test_no_more_comes_out_than_went_in(name, samples):
    decoder = small(name)
    made = decode(decoder, torch.randn(1, 7, DIM), torch.randn(1, samples) * 0.1)
    assert made.shape == (1, min(samples, 7 * decoder.hop))


@pytest.mark.parametrize("frame_rate", [10.0, 25.0, 50.0])
def test_encoders_of_other_frame_rates_are_served(name, frame_rate):
    decoder = small(name, frame_rate)
    assert decode(decoder, torch.randn(1, 3, DIM)).shape[-1] == 3 * decoder.sample_rate / frame_rate


def test_silent_and_huge_inputs_stay_finite(name):
    decoder = small(name)
    for states, degraded in ((0.0, 0.0), (1e4, 1.0), (-1e4, 1e-20)):
        given = torch.full((1, 4, DIM), states)
        assert decode(decoder, given, torch.full((1, 4 * decoder.hop), degraded)).isfinite().all()


def test_a_seed_makes_the_output(name):
    decoder, states = small(name), torch.randn(1, 5, DIM)
    degraded = torch.randn(1, 5 * decoder.hop)
    first, again, other = (decode(decoder, states, degraded, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) != decoder.iterative  # the others are the same with every seed


def test_its_config_builds_the_same_decoder(name):
    decoder = small(name)
    twin = build_decoder(DIM, 50.0, **decoder.config())
    twin.load_state_dict(decoder.state_dict())
    states = torch.randn(1, 4, DIM)
    degraded = torch.randn(1, 4 * decoder.hop)
    assert torch.equal(decode(twin, states, degraded), decode(decoder, states, degraded))
    assert twin.config() == decoder.config()


def test_the_last_estimate_is_the_waveform(name):
    decoder, states = small(name), torch.randn(1, 4, DIM)
    degraded = torch.randn(1, 4 * decoder.hop)
    estimates = decoder.estimates(states, degraded, generator=torch.Generator().manual_seed(3))
    assert torch.equal(estimates[-1], decode(decoder, states, degraded, 3))
    assert len(estimates) == (3 if decoder.iterative else 1)


def test_what_trains_gets_a_gradient_also_under_autocast(name):
    decoder, states = small(name), torch.randn(2, 6, DIM)
    clean = torch.randn(2, 6 * decoder.hop) * 0.1
    if name in ("mask", "map"):  # starts at the identity: behind a zeroed layer nothing moves at first
        torch.nn.init.normal_(decoder.out.weight, std=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        estimates = decoder.estimates(states, clean + 0.01 * torch.randn_like(clean))
        own = decoder.own_losses(states, clean)
    loss = sum(own.values(), torch.zeros(()))
    for estimate in estimates:
        loss = loss + sum(MultiResolutionStft(decoder.sample_rate)(estimate, clean).values())
    loss.backward()
    for key, parameter in decoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


def test_mistakes_are_named(name):
    decoder, states = small(name), torch.randn(1, 4, DIM)
    with pytest.raises(ConfigError, match=f"reads states {DIM} wide, got 5"):
        decode(decoder, torch.randn(1, 4, 5))
    with pytest.raises(ConfigError, match=r"decoder\.sample_rat"):
        small(name, sample_rat=16000)
    if decoder.needs_waveform:
        with pytest.raises(ConfigError, match="degraded waveform"):
            decoder(states)
    with pytest.raises(ConfigError, match="steps"):
        decode(decoder, states, steps=0 if decoder.iterative else 2)


def test_a_rate_the_frames_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="whole number of samples"):
        small("istft", 49.9)
    with pytest.raises(ConfigError, match="no decoder is called 'istf'"):
        build_decoder(DIM, 50.0, name="istf")


# ---- mask ---------------------------------------------------------------------------------------------


def test_a_fresh_mask_leaves_the_recording_as_it_is():
    decoder, degraded = small("mask"), torch.randn(2, 2999)
    torch.testing.assert_close(
        decode(decoder, torch.randn(2, 10, DIM), degraded), degraded, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("bound", [1.1, 4.0])
def test_no_bin_is_amplified_beyond_the_bound(bound):
    decoder = small("mask", bound=bound)
    torch.nn.init.normal_(decoder.out.weight, std=100)
    heard = torch.randn(1, decoder.resolution.n_fft // 2 + 1, 20, dtype=torch.complex64)
    size = decoder.mask(torch.randn(1, 10, DIM), heard).abs()
    assert size.max() <= bound * (1 + 1e-5)
    assert size.max() > 0.99 * bound  # the bound is what holds it


def test_the_mask_does_not_depend_on_the_level():
    decoder, states, degraded = small("mask"), torch.randn(1, 20, DIM), torch.randn(1, 6400)
    torch.nn.init.normal_(decoder.out.weight)
    loud, quiet = (decode(decoder, states, degraded * gain) / gain for gain in (1.0, 1e-3))
    torch.testing.assert_close(loud, quiet, atol=1e-3, rtol=1e-3)


def test_silence_stays_silence():
    decoder = small("mask")
    torch.nn.init.normal_(decoder.out.weight)
    assert not decode(decoder, torch.randn(1, 20, DIM), torch.zeros(1, 6400)).any()


def test_a_clip_reads_the_same_with_padding_behind_it():
    decoder = small("mask")
    clip = torch.randn(1, 16000)
    features = [
        decoder.features(
            torch.stft(x, 512, 160, window=decoder.window, pad_mode="constant", return_complex=True)
        )
        for x in (clip, torch.nn.functional.pad(clip, (0, 32000)))
    ]
    # but for the one or two windows that begin in the clip and end behind it
    torch.testing.assert_close(features[0], features[1][..., : features[0].shape[-1]], atol=0.01, rtol=0.01)


# ---- adapters in a decoder ------------------------------------------------------------------------------

KNITTING = {"bands": {"method": "knitting", "width": 8, "heads": 2}}


def knitted(**fields):
    """A decoder that does something, with adapters in it that do something."""
    decoder = small("map", **fields)
    torch.nn.init.normal_(decoder.out.weight, std=0.1)
    decoder.adapt(KNITTING)
    for part in decoder.adapters["parts"]["bands"].values():
        torch.nn.init.normal_(part.up.weight)
    return decoder


def test_fresh_adapters_change_nothing_and_alone_learn():
    decoder, states, degraded = small("map"), torch.randn(1, 10, DIM), torch.randn(1, 3200)
    torch.nn.init.normal_(decoder.out.weight, std=0.1)
    before, own = decode(decoder, states, degraded), dict(decoder.named_parameters())
    decoder.adapt(KNITTING)
    assert torch.equal(decode(decoder, states, degraded), before)
    learning = {key for key, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert learning == {key for key, _ in decoder.named_parameters()} - own.keys()
    with pytest.raises(ConfigError, match="decoder map: has adapters already"):
        decoder.adapt(KNITTING)


def test_a_decoder_with_adapters_is_built_and_copied_with_them():
    decoder, states, degraded = knitted(), torch.randn(1, 10, DIM), torch.randn(1, 3200)
    made = decode(decoder, states, degraded)
    twin = build_decoder(DIM, 50.0, **decoder.config())
    twin.load_state_dict(decoder.state_dict())
    assert torch.equal(decode(twin, states, degraded), made)
    copied = deepcopy(decoder)
    copied.adapters["parts"]["bands"]["layers/0/block"].up.weight.data.zero_()
    assert not torch.equal(decode(copied, states, degraded), made)
    assert torch.equal(decode(decoder, states, degraded), made)


def test_what_a_clip_was_padded_with_is_not_listened_to_by_adapters_in_a_decoder():
    decoder, clip = knitted(), torch.randn(1, 3200)
    heard = []
    attention = decoder.adapters["parts"]["bands"]["layers/0/block"].along[0]
    attention.register_forward_pre_hook(lambda module, given: heard.append(given[1]))
    decode(decoder, torch.randn(1, 30, DIM), torch.nn.functional.pad(clip, (0, 6400)))
    (there,) = {tuple(line.tolist()) for line in heard[0]}
    assert sum(there) == 6  # 3,200 samples and half a window behind them are 22 spectra
    assert there == tuple(sorted(there, reverse=True))


@pytest.mark.parametrize("name", ["mask", "istft"])
def test_where_a_frame_is_a_moment_knitting_is_refused_with_the_reason(name):
    with pytest.raises(ConfigError, match=r"frequency is folded into the channels.*the decoder map"):
        small(name, adapters=KNITTING)
    decoder = small(name, adapters={"a": {"method": "bottleneck", "width": 4, "sites": ["layers.*.ffn"]}})
    assert decode(decoder, torch.randn(1, 4, DIM)).isfinite().all()


def test_what_no_decoder_can_carry_is_refused_by_name():
    with pytest.raises(ConfigError, match="decoder wavefit: has no sites"):
        small("wavefit", adapters=KNITTING)
    with pytest.raises(ConfigError, match=r"decoder\.adapters\.a: mosa has a procedure of its own"):
        small(
            "map",
            adapters={
                "a": {"method": "mosa", "of": {"method": "bottleneck", "width": 4, "sites": ["layers.*.ffn"]}}
            },
        )
    for adapters in ([1], {"a.b": KNITTING["bands"]}, {"a": 1}, {"a": {"method": "nothing_of_the_kind"}}):
        with pytest.raises(ConfigError, match=r"decoder\.adapters"):
            small("map", adapters=adapters)
    with pytest.raises(ConfigError, match=r"decoder\.adapters\.bands: .*'widht'"):
        small("map", adapters={"bands": {"method": "knitting", "widht": 8}})


# ---- learning -----------------------------------------------------------------------------------------


def voice(samples, rate):
    time = torch.arange(samples) / rate
    tones = torch.stack([(2 * torch.pi * 150 * k * time).sin() / k for k in range(1, 9)]).sum(0)
    return (0.2 * tones * (1 + (2 * torch.pi * 3 * time).sin()))[None]


def learn(decoder, frames, steps, lr, loss):
    """The loss of one clip before and after so many steps."""
    states, clean = torch.randn(1, frames, DIM), voice(frames * decoder.hop, decoder.sample_rate)
    degraded = clean + 0.2 * torch.randn(clean.shape)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=lr)
    found = []
    for _ in range(steps):
        estimates = decoder.estimates(states, degraded, generator=torch.Generator().manual_seed(0))
        own = sum(decoder.own_losses(states, clean).values(), torch.zeros(()))
        of_waveforms = torch.stack([loss(estimate, clean) for estimate in estimates]).mean()
        optimiser.zero_grad()
        (of_waveforms + own).backward()
        optimiser.step()
        found.append(of_waveforms.item())
    return found[0], sum(found[-3:]) / 3


def test_a_mask_learns_a_clip():
    before, after = learn(small("mask"), 25, 25, 5e-3, CompressedSpectrum(16000))
    assert after < 0.5 * before


@pytest.mark.parametrize(("name", "share"), [("istft", 0.8), ("wavefit", 0.85)])
def test_a_generator_learns_a_clip(name, share):
    distance = MultiResolutionStft(16000)
    before, after = learn(
        small(name, sample_rate=16000), 8, 30, 5e-3, lambda made, clean: sum(distance(made, clean).values())
    )
    assert after < share * before
