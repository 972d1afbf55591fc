"""Degradations keep length and alignment, and depend on (seed, id, epoch) alone."""

import sys

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.audio.degradations import codec, rooms
from speech_peft.audio.degradations.step import Scene
from speech_peft.audio.degradations.steps import (
    Babble,
    BandLimit,
    Clip,
    Codec,
    Gain,
    Noise,
    Notch,
    OneOf,
    PacketLoss,
    Reverb,
    Speed,
    Talker,
    Tilt,
)
from speech_peft.audio.degrade import PRESETS, TELEPHONE, Degrader, parse
from speech_peft.errors import ConfigError

RATE = 16_000


def speechlike(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Syllables of a gliding voice: harmonics and a little breath, with pauses."""
    generator, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.7 * time + seed)) / RATE
    voice = sum(np.sin(n * phase + generator.uniform(0, 6)) / n for n in range(1, 25))
    voice = voice + 0.3 * generator.standard_normal(len(time))
    return (0.1 * voice * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)).astype(np.float32)


def pool(generator: np.random.Generator) -> np.ndarray:
    return speechlike(int(generator.integers(100, 104)))


def lag(degraded: np.ndarray, clean: np.ndarray) -> int:
    size = 2 * len(clean)
    correlation = np.fft.irfft(np.fft.rfft(degraded, size) * np.conj(np.fft.rfft(clean, size)))
    return (int(correlation.argmax()) + size // 2) % size - size // 2


STEPS = [
    *(Noise(colors=(color,)) for color in ("white", "pink", "brown", "hum")),
    *(Codec(codecs=(name,)) for name in codec.CODECS),
    *(Babble(), Talker(snr=(10, 10)), BandLimit(), Notch(), Tilt(), Clip(), Reverb(), Gain(), PacketLoss()),
    OneOf(steps=(Gain(), Clip())),
]
NAMES = [f"{step.kind}-{getattr(step, 'colors', getattr(step, 'codecs', ('',)))[0]}" for step in STEPS]


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_step_keeps_length_and_adds_no_delay(step):
    clean = speechlike(0)
    for epoch in range(3):
        degraded = Degrader((step,), seed=1)(clean, RATE, id="a", epoch=epoch, pool=pool, stranger=pool)
        assert degraded.samples.shape == clean.shape
        assert degraded.samples.dtype == np.float32
        assert np.isfinite(degraded.samples).all()
        assert abs(lag(degraded.samples, clean)) <= 1
        assert degraded.applied[0]["kind"] == step.kind
        assert not np.array_equal(degraded.samples, clean)


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
@pytest.mark.parametrize("length", [1, 7, 300])
def test_step_takes_the_shortest_and_the_silent_clip(step, length):
    for level in (0.0, 0.1):
        clip = np.full(length, level, np.float32)
        assert len(Degrader((step,))(clip, RATE, id="a", pool=pool, stranger=pool).samples) == length


@pytest.mark.parametrize("step", [Noise(snr=3), Babble(snr=3)])
def test_noise_lies_at_its_snr(step):
    clean = 0.1 * speechlike(0)
    noise = Degrader((step,))(clean, RATE, id="a", pool=pool).samples - clean
    assert 10 * np.log10(np.square(clean).sum() / np.square(noise).sum()) == pytest.approx(3, abs=0.01)


def test_same_seed_id_and_epoch_give_the_same_bits_in_any_order():
    clean = speechlike(0)
    degrader = Degrader((*TELEPHONE, Reverb(p=0.5), PacketLoss(p=0.5)), seed=3)
    keys = [(name, epoch) for name in "abc" for epoch in range(2)]
    forward = {key: degrader(clean, RATE, id=key[0], epoch=key[1], pool=pool).samples for key in keys}
    again = Degrader(degrader.steps, seed=3)
    for key in reversed(keys):
        assert np.array_equal(again(clean, RATE, id=key[0], epoch=key[1], pool=pool).samples, forward[key])
    assert len({samples.tobytes() for samples in forward.values()}) == len(keys)


def test_step_draws_do_not_shift_the_next_step():
    clean = speechlike(0)
    last = [
        Degrader((first, Gain()))(clean, RATE, id="a", pool=pool).applied[-1] for first in (Clip(), Babble())
    ]
    assert last[0] == last[1]


def test_variants_repeat_after_so_many_epochs():
    clean = speechlike(0)
    degrader = Degrader(TELEPHONE, variants=2)
    epochs = [degrader(clean, RATE, id="a", epoch=epoch, pool=pool).samples for epoch in range(4)]
    assert np.array_equal(epochs[0], epochs[2])
    assert np.array_equal(epochs[1], epochs[3])
    assert not np.array_equal(epochs[0], epochs[1])


def test_clean_share_is_left_untouched():
    clean = speechlike(0, 0.05)
    degrader = Degrader((Gain(),), clean=0.3)
    clips = [degrader(clean, RATE, id=str(number)) for number in range(400)]
    untouched = [clip for clip in clips if not clip.applied]
    assert 0.22 < len(untouched) / len(clips) < 0.38
    assert all(np.array_equal(clip.samples, clean) for clip in untouched)


def test_noise_and_room_from_files(tmp_path):
    clean = speechlike(0)
    io.save(tmp_path / "noise.wav", speechlike(5, 0.5), RATE)
    response = np.zeros(800, np.float32)
    response[[100, 400]] = 0.9, 0.3  # 100 samples of travel time
    io.save(tmp_path / "room.wav", response, RATE)
    steps = (Noise(files=(str(tmp_path / "noise.wav"),)), Reverb(files=(str(tmp_path / "room.wav"),)))
    degraded = Degrader(steps)(clean, RATE, id="a")
    assert abs(lag(degraded.samples, clean)) <= 1
    assert [entry["file"].rpartition("/")[2] for entry in degraded.applied] == ["noise.wav", "room.wav"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"kind": "nois"}, r"degrade\[0\].*'nois'"),
        ({"kind": "noise", "snrr": 1}, r"degrade\[0\]\.snrr"),
        ({"kind": "noise", "snr": [5, 1]}, r"degrade\[0\]\.snr.*low end"),
        ("telefone", "Did you mean 'telephone'"),
    ],
)
def test_wrong_step_is_named(step, message):
    with pytest.raises(ConfigError, match=message):
        parse([step])


def test_preset_stands_for_its_steps():
    assert parse(["telephone", {"kind": "gain", "db": 3}]) == (*TELEPHONE, Gain(db=(3, 3)))


def test_babble_without_a_pool_says_so():
    with pytest.raises(ConfigError, match="pool"):
        Degrader((Babble(),))(speechlike(0), RATE, id="a")


@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.0])
def test_another_talker_is_one_voice_as_loud_as_asked_for_somewhere_in_the_clip(seconds):
    clean, other = speechlike(0), speechlike(7, seconds)
    added = Degrader((Talker(snr=(6, 6)),))(clean, RATE, id="a", stranger=lambda _: other).samples - clean
    long, short = (added, other) if len(added) > len(other) else (other, added)
    found = np.correlate(long, short, "valid")
    at = int(found.argmax())
    gain = 10 ** (-6 / 20) * np.sqrt(np.mean(clean**2) / np.mean(other**2))
    wanted = gain * other[at : at + len(clean)] if seconds > 2 else np.pad(gain * other, (at, 0))
    np.testing.assert_allclose(added[: len(wanted)], wanted[: len(added)], atol=1e-4)


def test_another_talker_wants_somebody_else():
    with pytest.raises(ConfigError, match="utterances of other speakers"):
        Degrader((Talker(),))(speechlike(0), RATE, id="a")


def test_holes_are_as_long_as_asked_for():
    tone = np.ones(20 * RATE, np.float32)
    step = PacketLoss(rate=(0.3, 0.3), packet_seconds=(0.1, 0.5))
    degraded = Degrader((step,))(tone, RATE, id="a")
    size = round(degraded.applied[0]["packet_seconds"] * RATE)
    edges = np.flatnonzero(np.diff(np.concatenate([[1.0], degraded.samples, [1.0]])))
    lengths = edges[1::2] - edges[::2]
    assert 0.1 * RATE <= size <= 0.5 * RATE
    assert set(lengths[:-1] % size) == {0}


def test_soft_clipping_bends_and_stays_below_the_same_top():
    clean = speechlike(0)
    hard, soft = (
        Degrader((Clip(level=(0.5, 0.5), soft=share),))(clean, RATE, id="a").samples for share in (0.0, 1.0)
    )
    top = np.abs(hard).max()
    assert (np.abs(hard) == top).sum() > 10 * (np.abs(soft) > 0.999 * top).sum()
    assert np.abs(soft).max() <= top


@pytest.mark.parametrize("name", ["telephone", "restoration"])
def test_a_preset_keeps_length_and_does_something(name):
    clean = speechlike(0, 1.0)
    degrader = Degrader(PRESETS[name], seed=1)
    clips = [degrader(clean, RATE, id="a", epoch=epoch, pool=pool) for epoch in range(6)]
    assert all(len(clip.samples) == len(clean) and np.isfinite(clip.samples).all() for clip in clips)
    assert len({clip.samples.tobytes() for clip in clips}) == 6


def test_restoration_draws_from_the_published_ranges():
    steps = {step.kind: step for step in PRESETS["restoration"]}
    assert steps["reverb"].rt60 == (0.2, 0.9)
    noises = [one for step in PRESETS["restoration"] if step.kind == "one_of" for one in step.steps]
    assert {one.snr for one in noises if one.kind in ("noise", "babble")} == {(-5.0, 30.0)}
    assert {"band_limit", "clip", "codec"} <= steps.keys()
    assert "packet_loss" in {one.kind for one in noises}


def test_simulated_rooms_without_their_package_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(ConfigError, match="pip install"):
        rooms.simulated.__wrapped__(3, (0.3, 0.3), RATE)


@pytest.mark.filterwarnings("ignore")
def test_a_simulated_room_decays_as_asked_and_starts_at_once():
    package = pytest.importorskip("pyroomacoustics", reason="the extra `restore` is not installed")
    for number, rt60 in ((0, 0.3), (1, 0.7)):
        response, about = rooms.simulated(number, (rt60, rt60), RATE)
        assert about["rt60"] == rt60
        assert response[0] == np.abs(response).max() == 1
        measured = package.experimental.measure_rt60(response, fs=RATE, decay_db=30)
        assert measured == pytest.approx(rt60, rel=0.4)


def test_speed_changes_length_and_pitch_and_nothing_else():
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)
    fast = Degrader([Speed(rate=1.25)])(tone, RATE, id="a").samples
    assert abs(len(fast) - RATE / 1.25) <= 1
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert abs(np.argmax(spectrum) * RATE / len(fast) - 625) < 2
    assert abs(np.abs(fast[1000:-1000]).max() - 1) < 0.01


def test_how_much_longer_a_clip_may_become_is_known():
    steps = [Speed(rate=(0.8, 1.25)), OneOf(steps=(Speed(rate=(0.5, 1.0)), Gain()))]
    shortest, longest = Degrader(steps).stretch
    assert (shortest, longest) == (pytest.approx(0.8), pytest.approx(2.5))
    heard = [Degrader(steps)(speechlike(1), RATE, id=str(i)).samples for i in range(12)]
    assert len({len(one) for one in heard}) > 6
    assert Degrader(PRESETS["restoration"]).stretch == (1.0, 1.0)


def level_db(x: np.ndarray, low: float, high: float) -> float:
    """Of the power between two frequencies, in dB over that of all."""
    power = np.abs(np.fft.rfft(x)) ** 2
    hertz = np.fft.rfftfreq(len(x), 1 / RATE)
    return 10 * np.log10(power[(low <= hertz) & (hertz < high)].sum() / power.sum())


def test_a_notch_takes_its_octaves_and_nothing_else():
    white = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32) / 10
    step = Notch(centre=(1000, 1000), octaves=(2, 2), db=(-30, -30))
    made, drawn = step.apply(white, Scene(RATE, np.random.default_rng(0), None))
    assert drawn == {"centre": pytest.approx(1000), "octaves": 2, "db": -30}
    assert level_db(made, 550, 1900) - level_db(white, 550, 1900) == pytest.approx(-29, abs=1)
    assert level_db(made, 2500, 7900) == pytest.approx(level_db(white, 2500, 7900), abs=1)


def test_a_tilt_falls_or_rises_by_so_many_decibels_an_octave():
    white = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32) / 10
    slopes = set()
    for seed in range(6):
        made, drawn = Tilt(db=(4, 4)).apply(white, Scene(RATE, np.random.default_rng(seed), None))
        gains = [level_db(made, f, 2 * f) - level_db(white, f, 2 * f) for f in (500, 1000, 2000)]
        assert np.diff(gains) == pytest.approx(drawn["db"], abs=0.7)
        slopes.add(drawn["db"])
    assert slopes == {-4, 4}
