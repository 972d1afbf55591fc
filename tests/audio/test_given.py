"""What is handed over as sound in Python: told apart in one place, and refused loudly where it is none."""

import io as stdio
import types

import numpy as np
import pytest
import soundfile
import torch

import speech_peft as sp
from speech_peft.audio import io
from speech_peft.audio.given import Packed, Wave, listed, one
from speech_peft.decoders.words import whisper_text
from speech_peft.errors import AudioError, ConfigError, NoSuchAudio
from speech_peft.folders.inputs import Job
from speech_peft.transcribe import transcriber

RATE = 8000
TONE = (0.3 * np.sin(np.arange(RATE) / 3)).astype(np.float32)
STEREO = np.stack([TONE, 0.5 * TONE], 1)


def packed(samples: np.ndarray) -> bytes:
    file = stdio.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Decoder:
    """As a column of a data set gives its cells since datasets 4."""

    def get_all_samples(self):
        return types.SimpleNamespace(data=torch.from_numpy(TONE)[None], sample_rate=RATE)


FORMS = {
    "an array and its rate": (TONE, RATE),
    "a tensor and its rate": (torch.from_numpy(TONE), RATE),
    "a tensor that learns": (torch.from_numpy(TONE).requires_grad_(), RATE),
    "half precision": (torch.from_numpy(TONE).to(torch.bfloat16), RATE),
    "double precision": (TONE.astype(np.float64), RATE),
    "16 bits": ((TONE * 32768).astype(np.int16), RATE),
    "32 bits": ((TONE.astype(np.float64) * 2**31).astype(np.int32), RATE),
    "channels last": (TONE[:, None], RATE),
    "channels first": (torch.from_numpy(TONE)[None], RATE),
    "decoded by a data set": {"array": TONE, "sampling_rate": RATE, "path": None},
    "decoded, as a list": {"array": TONE.tolist(), "sampling_rate": RATE},
    "not decoded": {"bytes": packed(TONE), "path": "a.wav"},
    "a decoder": Decoder(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_sound_is_the_same_samples_at_the_same_rate(form):
    (found,) = listed(FORMS[form])
    wave = found.wave() if isinstance(found, Packed) else found
    assert wave.rate == RATE
    tolerance = {"half precision": 2e-3, "16 bits": 4e-5}.get(form, 1e-7)
    np.testing.assert_allclose(wave.heard(RATE, "mix"), TONE, atol=tolerance)


@pytest.mark.parametrize("array", [TONE, torch.from_numpy(TONE)])
def test_samples_alone_are_at_16_khz_or_the_rate_that_is_said(array):
    assert [wave.rate for wave in listed(array)] == [16_000]
    assert [wave.rate for wave in listed(array, rate=44_100)] == [44_100]


@pytest.mark.parametrize("channels", ["mix", "first"])
@pytest.mark.parametrize("rate", [RATE, 16_000])
def test_samples_are_heard_as_the_file_of_them_is(tmp_path, channels, rate):
    (tmp_path / "a.wav").write_bytes(packed(STEREO))
    expected = io.load(tmp_path / "a.wav", rate, channels=channels).samples
    for wave in (one((STEREO, RATE)), one((STEREO.T, RATE)), Packed(packed(STEREO)).wave()):
        np.testing.assert_allclose(wave.heard(rate, channels), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (None, r"inputs: got None \(NoneType\); expected a path"),
        (3.5, r"inputs: got 3.5 \(float\)"),
        ([3.5], r"audio: got 3.5 \(float\)"),
        ([b"RIFF"], r"audio: got b'RIFF' \(bytes\)"),
        ([[0.1, 0.2]], r"audio: got \[0.1, 0.2\] \(list\)"),
        ((TONE, 0), r"a sampling rate is a whole number of Hz, got 0"),
        ({"array": TONE}, r"has no 'sampling_rate'"),
        ({"array": TONE, "sampling_rate": "8k"}, r"whole number of Hz, got '8k'"),
        ({"wave": TONE}, r"got a mapping with wave"),
        ({"array": "a.wav", "sampling_rate": 8000}, r"got 'a.wav' \(str\)"),
        (np.zeros((2, 3, 4), np.float32), r"shape \(2, 3, 4\); expected \(s,\)"),
        (np.zeros((100, 16_000), np.float32), r"up to 64 channels\. Several recordings are given as a list"),
        (np.zeros(9, np.int64), r"samples of int64; expected floats, int16 or int32"),
        (np.zeros(9, bool), r"samples of bool"),
        (np.zeros(9, np.complex64), r"samples of complex64"),
        (1e4 * TONE, r"reach 3000; floats are at full scale at 1\. Divide"),
    ],
)  # fmt: skip
def test_what_is_no_sound_is_refused_with_what_came_and_what_is_expected(thing, message):
    with pytest.raises(ConfigError, match=message):
        list(listed(thing))


def test_a_file_that_is_not_there_raises_at_once_and_is_an_error_of_pythons_own_kind(tmp_path):
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    for missing in (tmp_path / "no.wav", tmp_path):
        with pytest.raises(NoSuchAudio, match=str(missing)) as caught:
            listed([tmp_path / "a.wav", missing])
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, AudioError)
        assert str(caught.value) == f"{missing}: {caught.value.reason}"
    with pytest.raises(FileNotFoundError):
        one({"path": str(tmp_path / "no.wav"), "bytes": None})


def test_what_comes_one_by_one_is_looked_at_when_it_comes(tmp_path):
    found = iter(listed(thing for thing in (TONE, tmp_path / "no.wav")))
    assert isinstance(next(found), Wave)
    with pytest.raises(NoSuchAudio):
        next(found)


def test_two_paths_in_a_tuple_are_two_recordings(tmp_path):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", TONE, RATE)
    assert len(list(listed((tmp_path / "a.wav", tmp_path / "b.wav")))) == 2


def test_a_file_in_memory_that_cannot_be_decoded_says_its_name():
    with pytest.raises(AudioError, match=r"^x\.wav: "):
        Packed(b"no sound", "x.wav").wave()


@pytest.fixture
def hears(monkeypatch):
    """A transcriber of a tiny model that writes how many samples it heard."""
    from speech_peft.backbones.families import tiny
    from speech_peft.core.model import AdaptedModel
    from speech_peft.decoders.words.decoded import Decoded
    from speech_peft.opening.loading import Opened

    backbone = tiny("whisper", context="fit")
    opened = Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}))
    monkeypatch.setattr(transcriber, "load", lambda *_, **__: opened)

    def decode(backbone, states, mask, *, seconds, **_):
        return [Decoded(f"{s:.2f}", (), 0.0, 0.0) for s in seconds]

    monkeypatch.setattr(whisper_text, "decode", decode)
    return sp.Transcriber(vad="none")


def test_a_transcriber_hears_every_form_in_one_call(hears, tmp_path):
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    given = [tmp_path / "a.wav", str(tmp_path / "a.wav"), *FORMS.values(), STEREO]
    results = list(hears.transcribe(given))
    assert [result.error for result in results] == [None] * len(given)
    assert [result.text for result in results] == ["1.00"] * (len(given) - 1) + ["0.50"]
    assert [result.path for result in results[:3]] == [str(tmp_path / "a.wav")] * 2 + [""]
    assert results[0].segments[0].end == 1.0


def test_a_missing_file_raises_in_python_and_is_a_row_of_a_command(hears, tmp_path):
    with pytest.raises(NoSuchAudio):
        hears.transcribe([TONE, tmp_path / "no.wav"])
    with pytest.raises(NoSuchAudio):
        list(hears.transcribe(thing for thing in (TONE, tmp_path / "no.wav")))
    good, bad = hears.transcribe([TONE, Job(tmp_path / "no.wav", "no")])
    assert (good.error, bad.stage) == (None, "decode")


def test_a_file_that_cannot_be_decoded_is_a_result_with_an_error(hears, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    nan = TONE.copy()
    nan[7] = np.nan
    good, *bad = hears.transcribe([TONE, tmp_path / "bad.wav", {"bytes": b"x", "path": "x.wav"}, nan])
    assert good.error is None
    assert all(result.error and result.stage == "decode" for result in bad)
    assert bad[1].path == "x.wav"
