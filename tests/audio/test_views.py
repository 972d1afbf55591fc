"""Recordings of several microphones: each channel and each file is a view, in memory and in blocks alike."""

import numpy as np
import pytest

from speech_peft.audio import io, manifest, views
from speech_peft.audio.given import Wave
from speech_peft.audio.windows import chunks
from speech_peft.errors import AudioError

RATE = 16_000
SOUND = (0.1 * np.random.default_rng(0).standard_normal((2 * RATE, 3))).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """One file of three channels, and a file for each of them, the second shorter and at another rate."""
    io.save(tmp_path / "array.wav", SOUND, RATE, "FLOAT")
    io.save(tmp_path / "0.wav", SOUND[:, 0], RATE, "FLOAT")
    io.save(tmp_path / "1.wav", SOUND[:RATE, 1], RATE // 2, "FLOAT")
    return tmp_path


def test_a_file_of_several_channels_has_as_many_views(folder):
    found = views.load([folder / "array.wav"], RATE, start=0.5, duration=1.0)
    np.testing.assert_array_equal(found, SOUND[RATE // 2 : 3 * RATE // 2].T)


def test_each_file_is_a_view_at_one_rate_and_ends_where_it_does(folder):
    found = views.load([folder / "0.wav", folder / "1.wav"], RATE)
    assert [len(view) for view in found] == [2 * RATE, 2 * RATE]
    np.testing.assert_array_equal(found[0], SOUND[:, 0])
    (alone,) = views.load([folder / "1.wav"], RATE)
    np.testing.assert_array_equal(alone, io.load(folder / "1.wav", RATE).samples)


def test_blocks_have_the_mean_and_the_views_whatever_their_size(folder):
    whole = views.load([folder / "array.wav", folder / "0.wav"], 8000)
    for seconds in (0.3, 30.0):
        blocks = list(views.Blocks([folder / "array.wav", folder / "0.wav"], 8000, seconds))
        mean, *found = np.concatenate(blocks).T
        np.testing.assert_allclose(found, whole, atol=1e-6)
        np.testing.assert_allclose(mean, np.mean(whole, 0), atol=1e-6)
    given = Wave(SOUND, RATE, False)
    np.testing.assert_allclose(views.of(given, 8000)[:, 1:].T, whole[:3], atol=1e-6)


def test_a_view_that_ends_early_is_silent_from_there_on(folder):
    io.save(folder / "short.wav", SOUND[:RATE, 1], RATE, "FLOAT")
    (block,) = views.Blocks([folder / "0.wav", folder / "short.wav"], RATE)
    np.testing.assert_array_equal(block[:RATE, 2], SOUND[:RATE, 1])
    assert len(block) == 2 * RATE
    assert not block[RATE:, 2].any()


def test_too_many_channels_are_refused_with_their_number(tmp_path):
    io.save(tmp_path / "many.wav", np.zeros((800, 17), np.float32), RATE)
    for hear in (views.load, lambda files, rate: list(views.Blocks(files, rate))):
        with pytest.raises(AudioError, match=r"many\.wav: has 17 channels; at most 16"):
            hear([tmp_path / "many.wav"], RATE)


def test_windows_hold_each_view_of_what_they_cut():
    blocks = [np.column_stack([block.mean(1), block]) for block in np.split(SOUND, 4)]
    mono = [block[:, 0].copy() for block in blocks]
    several, alone = (list(chunks.windows(given, chunks.detector("none"))) for given in (blocks, mono))
    for window, plain in zip(several, alone, strict=True):
        np.testing.assert_array_equal(window.samples, plain.samples)
        np.testing.assert_array_equal(window.views, SOUND.T)
        np.testing.assert_array_equal(window.part(100, 900).views, SOUND[100:900].T)
        assert plain.heard == [plain.samples]
        longer = window.part(0, 100).followed_by(window.part(900))
        np.testing.assert_array_equal(longer.views, np.concatenate([SOUND[:100], SOUND[900:]]).T)


def test_speech_that_one_microphone_hears_is_cut_out_also_where_the_others_drown_it():
    """Two seconds of bursts in the third; noise as loud in the first two, which their mean still has."""
    random, time = np.random.default_rng(0), np.arange(4 * RATE) / RATE
    noise = 0.3 * random.standard_normal((4 * RATE, 2))
    bursts = 0.05 * np.sin(2 * np.pi * 300 * time) * ((time > 1) & (time < 3) & (time * 4 % 1 < 0.7))
    views = np.column_stack([noise, bursts]).astype(np.float32)
    block = np.column_stack([views.mean(1), views])
    assert not list(chunks.windows([block[:, 0].copy()], chunks.detector("energy")))
    (window,) = chunks.windows(np.split(block, 2), chunks.detector("energy"))
    assert window.start == pytest.approx(0.6, abs=0.1)
    assert window.end == pytest.approx(3.4, abs=0.2)


def test_a_row_of_several_files_is_read_and_written_as_a_list(folder):
    row = manifest.Row("a", folder / "0.wav", text="hello", others=(folder / "1.wav",))
    manifest.write(folder / "list.jsonl", [row])
    assert '"audio_filepath": ["0.wav", "1.wav"]' in (folder / "list.jsonl").read_text()
    assert manifest.read(folder / "list.jsonl") == [row]


def test_the_first_microphone_that_recorded_anything_is_known():
    views = np.stack([np.zeros(8, np.float32), SOUND[:8, 0], SOUND[:8, 1]])
    assert chunks.Window(0.0, views.mean(0), views=views).first_heard == 1
    assert chunks.Window(0.0, views[0], views=0 * views).first_heard == 0
    assert chunks.Window(0.0, views[1]).first_heard == 0
