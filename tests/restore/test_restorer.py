"""A model that changes nothing leaves nothing changed: length, level, seams, silence, channels."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speech_peft.core.listening.reference import Reference
from speech_peft.core.saved.save import read
from speech_peft.errors import ConfigError
from speech_peft.restore.guard import Guard, Words
from speech_peft.restore.restorer import Restorer as Guarded
from speech_peft.restore.resynthesis import Resynthesis
from tests import identity
from tests.identity import restorer, snr, sound

Restorer = partial(Guarded, guard=None)  # a guard needs a recogniser: where it is the subject it is given
RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    identity.install(monkeypatch)


@pytest.fixture
def folder(tmp_path) -> Path:
    return restorer(tmp_path / "adapter")


def only(restorer: Restorer, source, **more):
    (result,) = restorer.restore(source, **more)
    assert result.error is None, result.error
    return result


def level(samples: np.ndarray) -> float:
    return 10 * np.log10(np.square(samples, dtype=np.float64).mean())


def random_inputs(
    folder: Path, tmp_path: Path, count: int, longest: float, window: float, seed: int = 12
) -> None:
    """Random lengths, rates and channels: the length within a sample, the level within 0.5 dB, no seams."""
    random = np.random.default_rng(seed)
    cut = Restorer(folder, window_seconds=window, context_seconds=0.2, subtype="FLOAT")
    whole = Restorer(folder, window_seconds=30.0, context_seconds=0.5, subtype="FLOAT")
    for i in range(count):
        rate, channels = int(random.choice(RATES)), int(random.integers(1, 9))
        seconds = float(np.exp(random.uniform(np.log(0.05), np.log(longest))))
        came = sound(seconds, rate, channels, i)
        if channels > 1:
            came[:, 1] *= 0.1
        soundfile.write(tmp_path / "in.wav", came, rate, subtype="FLOAT")
        result = only(cut, tmp_path / "in.wav", out=tmp_path / "out")
        made, made_rate = soundfile.read(result.file, dtype="float32", always_2d=True)
        case = f"{seconds:.3f} s, {rate} Hz, {channels} channels"
        assert made_rate == rate, case
        assert abs(len(made) - len(came)) <= 1, case
        assert made.shape[1] == channels, case
        for channel in range(channels):
            assert abs(level(made[:, channel]) - level(came[:, channel])) <= 0.5, case
        reference = came
        if seconds < 25:
            one = only(whole, tmp_path / "in.wav", out=tmp_path / "whole")
            reference = soundfile.read(one.file, dtype="float32", always_2d=True)[0]
            assert snr(reference, made) >= 40, case


def test_random_inputs_keep_length_level_and_have_no_seams(folder, tmp_path):
    random_inputs(folder, tmp_path, 12, 4.0, 1.5)


@pytest.mark.slow
def test_many_random_inputs_keep_length_level_and_have_no_seams(folder, tmp_path):
    random_inputs(folder, tmp_path, 80, 90.0, 5.0, seed=200)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("decoder_rate", [16_000, 24_000])
def test_windows_of_every_decoder_join_to_what_came(tmp_path, rate, decoder_rate):
    path = restorer(tmp_path / "a", sample_rate=decoder_rate)
    model = Restorer(path, window_seconds=2.0, context_seconds=0.2, sample_rate=rate)
    came = sound(5.0, 16_000)[:, 0]
    came = np.convolve(came, np.hanning(32) / 16, "same").astype(np.float32)  # nothing near half the rate
    result = only(model, came)
    assert len(result.samples) == round(len(came) * rate / 16_000)
    back = result.samples[:: rate // 16_000] if rate % 16_000 == 0 else None
    if back is not None:
        assert snr(came[800:-800], back[800 : len(came) - 800]) > 40


def test_a_restoration_tells_the_digest_of_a_decoder_that_another_folder_brought(folder, tmp_path):
    other = restorer(tmp_path / "b")
    told = Restorer(folder, decoder=other).about
    assert (told["adapter_sha256"], told["decoder_sha256"]) == (read(folder).digest, read(other).digest)
    assert "decoder_sha256" not in Restorer(folder).about


def test_the_band_above_what_the_model_hears_is_kept(folder, tmp_path):
    came = sound(2.0, 48_000)[:, 0]
    result = only(Restorer(folder, window_seconds=2.0, context_seconds=0.2), came, rate=48_000)
    assert result.sample_rate == 48_000
    assert snr(came, result.samples) > 40


def test_strength_and_attenuation_limit_mix_with_what_came(tmp_path):
    came = sound(2.0, 16_000)[:, 0]
    path = restorer(tmp_path / "a", noise=0.05)
    made = [only(Restorer(path, strength=s), came).samples for s in (0.0, 0.5, 1.0)]
    limited = only(Restorer(path, attenuation_db=6.0206), came).samples
    assert np.array_equal(made[0], came)
    assert snr(came, made[1]) > snr(came, made[2]) + 3
    assert np.allclose(limited, made[1], atol=1e-5)
    assert np.array_equal(made[2], only(Restorer(path), came).samples)  # the seed decides
    assert not np.array_equal(made[2], only(Restorer(path, seed=1), came).samples)


def test_silence_stays_silence_and_nothing_but_speech_gets_louder(tmp_path):
    path = restorer(tmp_path / "a", gain=3.0, noise=0.05)
    quiet = np.zeros(48_000, np.float32)
    assert not only(Restorer(path), quiet).samples.any()
    came = np.concatenate([sound(1.5, 16_000)[:, 0], quiet, sound(1.5, 16_000, seed=1)[:, 0]])
    made = only(Restorer(path), came).samples
    frames = [np.square(x[: len(x) // 512 * 512].reshape(-1, 512)).sum(1) for x in (came, made)]
    assert (frames[1] <= frames[0] * 1.001).all()
    silent = frames[0] == 0
    assert silent.any()
    assert not frames[1][silent].any()


def test_channels_are_restored_each_as_a_middle_or_as_one(tmp_path):
    path = restorer(tmp_path / "a")
    came = sound(1.0, 16_000, 2)
    for channels in ("each", "mid"):
        assert snr(came, only(Restorer(path, channels=channels), came).samples) > 50
    assert snr(came.mean(1), only(Restorer(path, channels="mix"), came).samples) > 50
    came[:, 1] = 0
    assert not only(Restorer(path), came).samples[:, 1].any()


class Voice:
    name, limit = "toy", 0.9

    def __call__(self, clips):
        return np.abs(np.fft.rfft(np.concatenate(clips), 512)).astype(np.float32)


class Listener:
    name, multilingual = "toy", False

    def __init__(self, *said: str):
        self.said = list(said)

    def __call__(self, clips, languages):
        return [Words(self.said.pop(0) if i == 0 else "", -0.3) for i, _ in enumerate(clips)]


def test_what_fails_the_guard_falls_back_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "speech_peft.restore.wet.chunks.detector", lambda _: lambda s: np.ones(-(-len(s) // 512), np.float32)
    )
    came, path = sound(2.0, 16_000)[:, 0], restorer(tmp_path / "a", noise=0.02)
    said = "one two three four five six"
    good = only(Restorer(path, guard=Guard(None, Voice(), Listener(said, said))), came)
    assert (good.guard.taken, good.strength) == ("asked", 1.0)
    weaker = only(
        Restorer(path, guard=Guard(None, Voice(), Listener(said, said + " you you you", said))), came
    )
    assert (weaker.guard.taken, weaker.strength) == ("weaker", 0.5)
    assert weaker.guard.trials[0].failed == ("insertions", "disagreement")
    kept = only(Restorer(path, guard=Guard(None, Voice(), Listener(said, "", "", ""))), came)
    assert (kept.guard.taken, kept.strength) == ("input", 0.0)
    assert np.array_equal(kept.samples, came)
    assert "deletions" in kept.guard.trials[-1].failed


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"window_seconds": 2.0, "context_seconds": 1.0}, "window"),
        ({"strength": 1.5}, "strength"),
        ({"steps": 3}, "steps"),
        ({"subtype": "VORBIS"}, "subtype"),
        ({"format": "mp3"}, "format"),
        ({"channels": "left"}, "channels"),
        ({"speaker_reference": "me.wav", "guard": "sound"}, "guard compares with all who talk"),
        ({"speaker_reference": "me.wav"}, "no adapter here listens"),
    ],
)
def test_what_cannot_be_is_refused_by_name(folder, more, name):
    with pytest.raises(ConfigError, match=name):
        Restorer(folder, **more)


def test_every_window_is_told_the_reference(folder, monkeypatch):
    reference = Reference({}, torch.ones(1, 3, dtype=torch.bool))
    monkeypatch.setattr("speech_peft.restore.restorer.enrolled_file", lambda *_: reference)
    listening = Restorer(folder, speaker_reference="me.wav")
    told, encode = [], type(listening.opened.backbone).encode

    def note(self, features, ctx=None):
        told.append(ctx)
        return encode(self, features)

    monkeypatch.setattr(type(listening.opened.backbone), "encode", note)
    only(listening, sound(1.0, 16_000)[:, 0])
    assert told
    assert all(ctx.reference is reference for ctx in told)


@pytest.mark.parametrize("error", [KeyError, TypeError, AssertionError])
def test_whatever_is_raised_is_the_row_of_its_recording(folder, monkeypatch, error):
    decoded = Resynthesis._decoded

    def fails(self, rows, *more):
        if np.abs(rows).max() > 0.9:
            raise error("too loud")
        return decoded(self, rows, *more)

    monkeypatch.setattr(Resynthesis, "_decoded", fails)
    quiet = 0.1 * sound(1.0, 16_000)[:, 0]
    first, second, third = Restorer(folder).restore([quiet, np.ones(16_000, np.float32), quiet])
    assert first.error is None
    assert third.error is None
    assert "too loud" in second.error


def test_windows_that_lack_memory_go_through_in_halves(folder, monkeypatch):
    decoded, sizes = Resynthesis._decoded, []

    def fails(self, rows, *more):
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decoded(self, rows, *more)

    monkeypatch.setattr(Resynthesis, "_decoded", fails)
    model = Restorer(folder)
    result = only(model, np.repeat(sound(1.0, 16_000), 4, axis=1))
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert len(result.samples) == 16_000
    assert len(model.notes) == 3
