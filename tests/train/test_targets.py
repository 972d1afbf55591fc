"""The clean side of a clip begins, ends and sounds with what is heard."""

import json

import numpy as np
import pytest
import soundfile
import soxr

from speech_peft.audio import manifest
from speech_peft.audio.degrade import Degrader, parse
from speech_peft.train.data.clips import Clips
from speech_peft.train.data.heard import Bad, gather
from speech_peft.train.data.targets import Targets

RATE = 16000


def corpus(folder, seconds=0.5, rate=RATE, clean_seconds=None):
    random = np.random.default_rng(0)
    rows = []
    for i in range(2):
        for name, length in (("heard", seconds), ("clean", clean_seconds or seconds)):
            soundfile.write(folder / f"{name}{i}.wav", 0.3 * random.standard_normal(int(length * rate)), rate)
        rows.append({"id": str(i), "audio": f"heard{i}.wav", "target_audio": f"clean{i}.wav"})
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    alone = folder / "alone.jsonl"
    alone.write_text(
        "".join(json.dumps({k: v for k, v in r.items() if k != "target_audio"}) + "\n" for r in rows)
    )
    return path, alone


def clips(path, degrade=(), **targets):
    found = Clips(manifest.read(path), RATE, Degrader(parse(degrade), seed=0) if degrade else None)
    found.targets = Targets(RATE, targets.pop("sample_rate", RATE), **targets)
    return found


def test_without_degradation_what_is_heard_is_the_target(tmp_path):
    _, alone = corpus(tmp_path)
    batch = gather([clips(alone)[0, i] for i in range(2)])
    assert (batch.audio == batch.targets).all()
    assert (batch.references == batch.targets).all()


def test_the_target_is_as_loud_as_the_speech_in_the_noise(tmp_path):
    _, alone = corpus(tmp_path)
    heard = clips(alone, [{"kind": "noise", "snr": 0}], peak_db=(-30.0, -20.0))[3, 0]
    clean, noise = heard.example.target, heard.example.samples - heard.example.target
    assert 10 ** (-30 / 20) <= np.abs(clean).max() <= 10 ** (-20 / 20)
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(0, abs=0.01)
    again = clips(alone, [{"kind": "noise", "snr": 0}], peak_db=(-30.0, -20.0))[3, 0]
    assert (again.example.target == clean).all()
    assert np.abs(clips(alone, [{"kind": "noise"}], peak_db=(-30.0, -20.0))[4, 0].example.target).max() != (
        np.abs(clean).max()
    )


def test_a_reference_at_another_rate_begins_with_the_target(tmp_path):
    _, alone = corpus(tmp_path, rate=48000)
    heard = clips(alone, sample_rate=24000)[0, 0]
    assert len(heard.reference) == 1.5 * len(heard.example.target)
    back = soxr.resample(heard.reference, 24000, RATE)
    inside = slice(500, -500)
    error = np.linalg.norm((back - heard.example.target)[inside])
    assert error < 0.02 * np.linalg.norm(heard.example.target[inside])


def test_a_pair_comes_as_it_is(tmp_path):
    pairs, _ = corpus(tmp_path)
    heard = clips(pairs)[0, 1]
    expected = soundfile.read(tmp_path / "clean1.wav", dtype="float32")[0]
    assert (heard.example.target == expected).all()
    assert (heard.example.samples == soundfile.read(tmp_path / "heard1.wav", dtype="float32")[0]).all()


@pytest.mark.parametrize(("seconds", "fine"), [(0.495, True), (0.505, True), (0.45, False)])
def test_a_pair_of_two_lengths_is_a_bad_clip_unless_a_frame_is_all_that_differs(tmp_path, seconds, fine):
    pairs, _ = corpus(tmp_path, clean_seconds=seconds)
    heard = clips(pairs)[0, 0]
    if fine:
        assert len(heard.example.target) == len(heard.example.samples)
    else:
        assert isinstance(heard, Bad)
        assert "a pair begins and ends together" in heard.reason
