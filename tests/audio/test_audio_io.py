"""Recordings of any kind in, samples out; every bad file one clear reason."""

import os

import av
import numpy as np
import pytest
import soundfile

from speech_peft.audio import io
from speech_peft.errors import AudioError, ConfigError

RATE = 16_000


@pytest.fixture(scope="module")
def sweep() -> np.ndarray:
    time = np.arange(4 * RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 60 * time) * time)).astype(np.float32)


def encode(path, samples, codec, rate=RATE, format=None):
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (samples * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.rate = RATE
        size = stream.codec_context.frame_size or None
        cut = av.AudioResampler(stream.codec_context.format.name, "mono", rate, frame_size=size)
        for whole in (frame, None):
            for part in cut.resample(whole):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


FOREIGN = [
    ("a.m4a", "aac", RATE),
    ("a.mp4", "aac", 44_100),
    ("a.webm", "libopus", 48_000),
    ("a.mkv", "libopus", 48_000),
    ("a.amr", "libopencore_amrnb", 8_000),
    ("a.g722", "g722", RATE),
]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_what_save_writes_load_reads(tmp_path, sweep, suffix):
    path = tmp_path / f"a.{suffix}"
    io.save(path, sweep, RATE)
    clip = io.load(path)
    assert clip.seconds == pytest.approx(4.0, abs=0.01)
    n = min(len(clip.samples), len(sweep))
    assert np.corrcoef(clip.samples[:n], sweep[:n])[0, 1] > 0.99
    assert not clip.truncated
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "codec", "rate"), FOREIGN)
def test_ffmpeg_formats_load_at_the_wanted_rate(tmp_path, sweep, name, codec, rate):
    clip = io.load(encode(tmp_path / name, sweep, codec, rate))
    assert (clip.sample_rate, clip.source_rate, clip.samples.dtype) == (RATE, rate, np.float32)
    assert clip.seconds == pytest.approx(4.0, abs=0.15)
    assert not clip.truncated


@pytest.mark.parametrize(("name", "codec", "rate"), [*FOREIGN, ("a.mp3", "libmp3lame", RATE)])
def test_slice_equals_that_part_of_the_whole(tmp_path, sweep, name, codec, rate):
    path = encode(tmp_path / name, sweep, codec, rate)
    whole, part = io.load(path, None), io.load(path, None, start=2.5, duration=0.5)
    expected = whole.samples[round(2.5 * rate) : round(3.0 * rate)]
    assert np.abs(part.samples - expected).max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
def test_stream_equals_load_at_every_rate(tmp_path, rate):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * rate, 8)).astype(np.float32)
    io.save(tmp_path / "a.wav", noise, rate, "FLOAT")
    clip = io.load(tmp_path / "a.wav")
    blocks = list(io.stream(tmp_path / "a.wav", block_seconds=0.7))
    assert [len(block) for block in blocks[:-1]] == [11_200] * (len(blocks) - 1)
    assert np.array_equal(np.concatenate(blocks), clip.samples)
    assert (len(clip.samples), clip.source_channels) == (3 * RATE, 8)


def test_channels_are_mixed_or_the_first_is_taken(tmp_path):
    io.save(tmp_path / "a.wav", np.tile([[0.5, -0.25]], (100, 1)), RATE, "FLOAT")
    assert np.allclose(io.load(tmp_path / "a.wav").samples, 0.125)
    assert np.allclose(io.load(tmp_path / "a.wav", channels="first").samples, 0.5)


def test_info_tells_length_without_decoding(tmp_path, sweep):
    io.save(tmp_path / "a.flac", sweep, RATE)
    assert io.info(tmp_path / "a.flac") == io.AudioInfo(4.0, RATE, 1, "FLAC PCM_16")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "mkv"])
def test_cut_file_is_read_and_flagged(tmp_path, sweep, suffix):
    whole = tmp_path / f"whole.{suffix}"
    encode(whole, sweep, "libopus", 48_000) if suffix == "mkv" else io.save(whole, sweep, RATE)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: len(content) // 2])
    clip = io.load(cut)
    assert clip.truncated
    assert 1.0 < clip.seconds < 3.0


def test_slice_within_a_file_is_not_truncated(tmp_path, sweep):
    io.save(tmp_path / "a.wav", sweep, RATE)
    assert not io.load(tmp_path / "a.wav", start=1.0, duration=1.0).truncated


def hostile(folder, kind):
    path = folder / f"{kind}.wav"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is a letter, not a recording\n" * 50)
    elif kind == "folder":
        path.mkdir()
    elif kind == "nan":
        soundfile.write(path, np.array([0.0, np.nan, 0.5]), RATE, "FLOAT")
    elif kind == "infinite":
        soundfile.write(path, np.array([0.0, np.inf, 0.5]), RATE, "FLOAT")
    elif kind == "samples":
        soundfile.write(path, np.zeros(0), RATE)
    elif kind == "bytes":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "video":
        path = folder / "video.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for _ in range(3):
                picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "empty"),
        ("text", "not audio"),
        ("bytes", "not audio"),
        ("folder", "is a directory"),
        ("nan", "NaN"),
        ("infinite", "infinite"),
        ("samples", "no samples"),
        ("video", "no audio stream"),
    ],
)
def test_bad_file_is_an_audio_error_with_its_reason(tmp_path, kind, reason):
    path = hostile(tmp_path, kind)
    with pytest.raises(AudioError) as caught:
        io.load(path)
    assert reason in caught.value.reason
    assert caught.value.path == str(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_an_audio_error(tmp_path, sweep):
    io.save(tmp_path / "a.wav", sweep, RATE)
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(AudioError, match="permission"):
        io.load(tmp_path / "a.wav")


def test_slice_past_the_end_says_where_the_end_is(tmp_path, sweep):
    io.save(tmp_path / "a.wav", sweep, RATE)
    with pytest.raises(AudioError, match=r"ends at 4\.00 s, before 9\.00 s"):
        io.load(tmp_path / "a.wav", start=9.0)


def test_one_sample_is_a_recording(tmp_path):
    io.save(tmp_path / "a.wav", np.zeros(1, np.float32), RATE)
    assert len(io.load(tmp_path / "a.wav").samples) == 1


def test_unknown_suffix_is_refused_before_writing(tmp_path):
    with pytest.raises(ConfigError, match=r"\.xyz"):
        io.save(tmp_path / "a.xyz", np.zeros(1), RATE)
    assert not list(tmp_path.iterdir())


def test_minutes_of_vorbis_are_written(tmp_path):
    io.save(tmp_path / "a.ogg", np.zeros(2_400_000, np.float32), RATE)  # at once: a crash of libsndfile
    assert io.info(tmp_path / "a.ogg").seconds == 150.0
