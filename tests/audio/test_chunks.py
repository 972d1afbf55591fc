"""Windows cover the speech, lie on the timeline of the recording, and do not depend on how it streams by."""

import numpy as np
import pytest
import torch

from speech_peft.audio.windows import chunks
from speech_peft.audio.windows.chunks import FRAME, SAMPLE_RATE, Cutting, Energy, detector, windows
from speech_peft.audio.windows.silero import Silero
from speech_peft.errors import ConfigError


def bursts(*spans: tuple[float, float], total: float) -> np.ndarray:
    """Loud noise where there is speech, faint noise elsewhere."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(round(total * SAMPLE_RATE)).astype(np.float32)
    gain = np.full(len(samples), 1e-3, np.float32)
    for start, end in spans:
        gain[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = 0.2
    return samples * gain


def loud(samples: np.ndarray) -> np.ndarray:
    """Judges each frame by itself, so that it does not depend on blocks either."""
    frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    return (np.abs(frames).mean(1) > 0.05).astype(np.float32)


def blocks(samples: np.ndarray, size: int):
    return (samples[i : i + size] for i in range(0, len(samples), size))


@pytest.mark.parametrize("vad", ["silero", "energy"])
@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1])
def test_a_minute_of_silence_or_steady_noise_has_no_window(vad, level):
    noise = np.random.default_rng(1).standard_normal(60 * SAMPLE_RATE).astype(np.float32) * np.float32(level)
    assert list(windows(blocks(noise, 30 * SAMPLE_RATE), detector(vad))) == []


def test_windows_cover_the_speech_on_the_original_timeline():
    samples = bursts((3, 5), (12, 14.5), total=20)
    first, second = windows([samples], Energy())
    assert first.start < 3 < 5 < first.end < 6
    assert second.start < 12 < 14.5 < second.end < 15.5
    at = round(second.start * SAMPLE_RATE)
    np.testing.assert_array_equal(second.samples, samples[at : at + len(second.samples)])


def test_windows_do_not_depend_on_the_blocks_of_the_stream():
    samples = bursts((1, 4), (5, 9), (14, 30), (33, 34), total=40)
    whole = list(windows([samples], loud))
    for size in (FRAME, 7001, 10 * SAMPLE_RATE):
        parts = list(windows(blocks(samples, size), loud))
        assert [(w.start, w.seconds) for w in parts] == [(w.start, w.seconds) for w in whole]
        assert all((a.samples == b.samples).all() for a, b in zip(parts, whole, strict=True))
        assert all((window.scores == loud(window.samples)).all() for window in parts)


def test_long_speech_is_cut_where_it_is_quietest_and_loses_nothing():
    samples = bursts((0, 25.2), (25.4, 70), total=70)
    found = list(windows(blocks(samples, 30 * SAMPLE_RATE), loud, Cutting(max_seconds=30)))
    assert found[0].end == pytest.approx(25.3, abs=0.05)
    np.testing.assert_array_equal(np.concatenate([window.samples for window in found]), samples)
    assert all(window.seconds <= 30 for window in found)


def test_a_window_is_given_before_the_stream_goes_on_behind_its_pause():
    samples = bursts((1, 11), total=16)
    read: list[int] = []

    def stream():
        for i, block in enumerate(blocks(samples, SAMPLE_RATE)):
            read.append(i)
            yield block

    first = next(windows(stream(), loud))
    assert first.start < 1 < 11 < first.end < 12
    assert len(read) <= 14


def test_a_window_whose_samples_are_gone_is_an_error_and_no_other_sound():
    stream = chunks._Stream()
    stream.add(np.zeros(10 * FRAME, np.float32), np.zeros(10, np.float32))
    stream.forget(5)
    with pytest.raises(RuntimeError, match="before those that are held"):
        stream.take(4, 6)


def test_without_a_detector_everything_is_kept_to_the_sample():
    samples = bursts((0, 3), total=3.0011)
    (window,) = windows([samples], detector("none"))
    assert len(window.samples) == len(samples)


def test_one_sample_is_not_an_error():
    assert list(windows([np.ones(1, np.float32)], detector("silero"))) == []


def test_an_unknown_detector_is_named_with_its_neighbours():
    with pytest.raises(ConfigError, match="silero"):
        detector("silera")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript, inside the package
def test_silero_agrees_with_its_own_package():
    threads = torch.get_num_threads()
    silero_vad = pytest.importorskip("silero_vad")
    torch.set_num_threads(threads)  # its import sets them to one
    model = silero_vad.load_silero_vad()
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    samples = (np.sin(2 * np.pi * (120 + 30 * np.sin(4 * t)) * t) * np.sin(9 * t) * 0.3).astype(np.float32)
    own = Silero()(samples)
    frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    theirs = [model(torch.from_numpy(frame), SAMPLE_RATE).item() for frame in frames]
    np.testing.assert_allclose(own, theirs, atol=1e-4)
