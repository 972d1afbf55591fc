"""A recording is read to its end, whatever its header declares."""

import struct

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.audio.degrade import parse
from speech_peft.audio.rows.row import Row
from speech_peft.bench import own_files
from speech_peft.bench.runs import restore as restoration_benchmark
from speech_peft.errors import AudioError
from speech_peft.restore.result import Restored
from tests.sounds import RATE, mp3_without_header, noise, sound_file


def lies(folder, kind):
    """A file of 4 s whose header says something else, or nothing."""
    tone = noise(4.0)
    halves = tone[: 2 * RATE], tone[2 * RATE :]

    def made(name, samples, **more):
        return sound_file(folder / name, samples, **more)

    if kind.startswith("joined"):
        suffix = kind.rpartition(" ")[2]
        return suffix, b"".join(made(f"{i}.{suffix}", half) for i, half in enumerate(halves))
    if kind == "mp3 of two bit rates without a header":
        parts = [
            mp3_without_header(folder / f"{i}.mp3", h, k)
            for i, (h, k) in enumerate(zip(halves, (128, 32), strict=True))
        ]
        return "mp3", b"".join(parts)
    if kind == "flac without a total":
        content = bytearray(made("a.flac", tone))
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        return "flac", bytes(content)
    if kind == "rf64 never finished":
        content = bytearray(made("a.rf64", tone, format="RF64"))
        at = content.find(b"ds64") + 8
        content[at : at + 24] = bytes(24)
        return "wav", bytes(content)
    content = bytearray(made("a.wav", tone, subtype="PCM_16"))
    riff, data = {
        "wav of size 0": (0, 0),
        "wav of size 0 in a riff of 36": (36, 0),
        "wav streamed": (0xFFFFFFFF, 0xFFFFFFFF),
        "wav with the size of a second ago": (36 + 2 * RATE, 2 * RATE),
    }[kind]
    content[4:8], content[40:44] = struct.pack("<I", riff), struct.pack("<I", data)
    return "wav", bytes(content)


KINDS = [
    "wav of size 0",
    "wav of size 0 in a riff of 36",
    "wav streamed",
    "wav with the size of a second ago",
    "rf64 never finished",
    "flac without a total",
    "mp3 of two bit rates without a header",
    "joined mp3",
    "joined ogg",
    "joined opus",
    "joined wav",
    "joined flac",
]


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_recording_is_read_whatever_its_header_declares(tmp_path, kind):
    suffix, content = lies(tmp_path, kind)
    path = tmp_path / f"lies.{suffix}"
    path.write_bytes(content)
    clip, info = io.load(path, None), io.info(path)
    assert clip.seconds == pytest.approx(4.0, abs=0.15)
    assert info.seconds == pytest.approx(clip.seconds, abs=0.15)  # training screens by it
    assert not clip.truncated
    part = io.load(path, None, start=2.5, duration=0.5).samples
    assert np.abs(part - clip.samples[round(2.5 * RATE) :][: len(part)]).max() < 1e-4


@pytest.mark.parametrize("kind", ["wav of size 0", "joined mp3", "joined ogg", "joined wav", "joined flac"])
def test_a_header_that_lies_is_told_of(tmp_path, kind):
    suffix, content = lies(tmp_path, kind)
    (tmp_path / f"lies.{suffix}").write_bytes(content)
    assert io.load(tmp_path / f"lies.{suffix}").notes


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_an_ordinary_recording_has_no_notes(tmp_path, suffix):
    sound_file(tmp_path / f"a.{suffix}", noise(1.0))
    assert io.load(tmp_path / f"a.{suffix}").notes == ()


def test_chunks_behind_the_samples_are_not_heard(tmp_path):
    content = sound_file(tmp_path / "a.wav", noise(1.0), subtype="PCM_16")
    (tmp_path / "a.wav").write_bytes(content + b"junk" + struct.pack("<I", 60_000) + b"\x7f\x01" * 30_000)
    assert io.load(tmp_path / "a.wav").seconds == 1.0


def test_an_empty_recording_with_chunks_is_empty(tmp_path):
    content = sound_file(tmp_path / "a.wav", noise(0.0), subtype="PCM_16")
    (tmp_path / "a.wav").write_bytes(content + b"LIST" + struct.pack("<I", 8) + b"INFOabcd")
    with pytest.raises(AudioError, match="no samples"):
        io.load(tmp_path / "a.wav")


def test_joined_recordings_of_other_rates_are_heard_at_the_first(tmp_path):
    first = sound_file(tmp_path / "a.wav", noise(1.0))
    second = sound_file(tmp_path / "b.wav", np.tile(noise(1.0, rate=16_000)[:, None], (1, 2)), 16_000)
    (tmp_path / "ab.wav").write_bytes(first + second)
    clip = io.load(tmp_path / "ab.wav", None)
    assert (clip.sample_rate, clip.source_channels) == (RATE, 1)
    assert clip.seconds == pytest.approx(2.0, abs=0.01)
    assert clip.samples[round(1.1 * RATE) :].std() > 0.05


def test_a_clip_too_long_for_the_memory_is_refused_and_its_stream_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "MOST_SAMPLES", 16_000)
    sound_file(tmp_path / "a.wav", noise(3.0))
    with pytest.raises(AudioError, match="hours"):
        io.load(tmp_path / "a.wav")
    assert sum(map(len, io.stream(tmp_path / "a.wav"))) == 48_000
    assert io.load(tmp_path / "a.wav", start=1.0, duration=0.5).seconds == 0.5


def test_slices_and_degraded_copies_of_long_recordings_are_never_held_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "MOST_SAMPLES", RATE)  # a second
    monkeypatch.setattr(own_files, "_AT_ONCE", 1.0)
    sound_file(tmp_path / "a.wav", noise(4.0))
    row = Row("a", tmp_path / "a.wav", start=0.5, duration=3.0)
    (cut,) = own_files.cut([row], tmp_path / "clips")
    (worse,) = own_files.degraded([row], parse([{"kind": "gain"}]), 0, tmp_path / "degraded")
    for made, rate in ((cut, RATE), (worse, 16_000)):
        assert io.info(made.audio).seconds == pytest.approx(3.0, abs=1e-3)
        assert sum(map(len, io.stream(made.audio, None))) == pytest.approx(3.0 * rate, abs=2)
    assert worse.duration == pytest.approx(3.0, abs=1e-3)


def test_a_recording_too_long_to_be_measured_is_a_row_of_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "MOST_SAMPLES", RATE)
    for name, seconds in (("long", 2.0), ("short", 0.5)):
        sound_file(tmp_path / f"{name}.wav", noise(seconds))
    rows = [Row(name, tmp_path / f"{name}.wav") for name in ("short", "long")]
    heard = []

    class Copies:
        def restore(self, jobs):
            for job in jobs:
                heard.append(job.audio.stem)
                yield Restored(str(job.audio), samples=noise(0.5), sample_rate=RATE)

    monkeypatch.setattr(restoration_benchmark, "open_restorer", lambda adapter, settings: Copies())
    made = restoration_benchmark.restored("a", "a", rows, tmp_path, restoration_benchmark.Settings())
    assert ("long" in heard, set(made.files), list(made.errors)) == (False, {"short"}, ["long"])
    assert "too long" in made.errors["long"]
