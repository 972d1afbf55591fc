"""Which track of a container is heard, and where its time stamps put it."""

import inspect
from contextlib import closing
from dataclasses import asdict
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.audio.containers.clock import Clock
from speech_peft.audio.rows.row import Row
from speech_peft.audio.windows.chunks import Window
from speech_peft.bench import __main__ as bench
from speech_peft.bench import own_files
from speech_peft.bench import restore as bench_restore
from speech_peft.classify import __main__ as classify
from speech_peft.classify.result import ClassifyOptions
from speech_peft.errors import AudioError
from speech_peft.folders.reader import Reader, Recording
from speech_peft.restore import __main__ as restore
from speech_peft.restore.result import RestoreOptions
from speech_peft.restore.wet import _Reading
from speech_peft.transcribe import __main__ as transcribe
from speech_peft.transcribe.result import TranscribeOptions
from tests.sounds import container, noise, sound_file

FOLDERS = [app.registered_commands[0].callback for app in (transcribe.app, classify.app, restore.app)]
COMMANDS = [*FOLDERS, bench.asr, bench.classify, bench_restore.restore]


def onsets(samples, rate=16_000):
    """Seconds at which sound begins after at least 50 ms of silence."""
    loud = np.abs(samples) > 0.02
    places = np.flatnonzero(loud)
    first = np.concatenate([[True], np.diff(places) > 0.05 * rate])
    return places[first] / rate


@pytest.mark.parametrize("suffix", ["webm", "mkv"])
def test_a_gap_in_the_time_stamps_is_silence(tmp_path, suffix):
    path = container(tmp_path / f"a.{suffix}", [(0.0, noise(1.0)), (4.0, noise(1.0))])
    clip = io.load(path)
    assert onsets(clip.samples)[[0, -1]] == pytest.approx([0.0, 4.0], abs=0.02)
    assert clip.seconds == pytest.approx(5.0, abs=0.01)
    assert io.info(path).seconds == pytest.approx(5.0, abs=0.02)
    assert not clip.truncated


@pytest.mark.parametrize(("start", "onset"), [(2.2, 1.8), (3.5, 0.5)])
def test_a_slice_that_begins_in_a_gap_begins_with_its_silence(tmp_path, start, onset):
    path = container(tmp_path / "a.webm", [(0.0, noise(2.0)), (4.0, noise(1.0))])
    part = io.load(path, start=start, duration=2.5).samples
    assert onsets(part)[0] == pytest.approx(onset, abs=0.02)


def test_audio_that_starts_after_the_picture_keeps_its_place(tmp_path):
    path = container(tmp_path / "late.mkv", [(2.0, noise(1.0))], video_seconds=4.0)
    clip = io.load(path)
    assert onsets(clip.samples)[0] == pytest.approx(2.0, abs=0.01)
    assert io.info(path).seconds == pytest.approx(clip.seconds, abs=0.02)
    part = io.load(path, start=2.5, duration=0.4)
    assert np.abs(part.samples).mean() > 0.02


def test_a_picture_that_outlasts_the_audio_does_not_make_it_truncated(tmp_path):
    path = container(tmp_path / "a.mkv", [(0.0, noise(1.0))], video_seconds=4.0)
    assert not io.load(path).truncated
    assert io.info(path).seconds == pytest.approx(1.0, abs=0.05)


def test_the_track_that_is_marked_is_heard_and_another_can_be_asked_for(tmp_path):
    tracks = [(0.0, noise(1.0, level=0.0))], [(0.0, noise(1.0))]
    path = container(tmp_path / "two.mkv", *tracks, default=2)
    marked, first = io.load(path), io.load(path, track=1)
    assert (marked.samples.std() > 0.03, first.samples.std() > 0.03) == (True, False)
    assert any("2 audio tracks; track 2" in note for note in marked.notes)
    assert any("track 1" in note for note in first.notes)


@pytest.mark.parametrize("name", ["two.mkv", "one.wav"])
def test_a_track_that_is_not_there_is_an_audio_error(tmp_path, name):
    container(tmp_path / "two.mkv", [(0.0, noise(0.5))], [(0.0, noise(0.5))])
    sound_file(tmp_path / "one.wav", noise(0.5))
    with pytest.raises(AudioError, match="no track 3"):
        io.load(tmp_path / name, track=3)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_listens_has_a_track_to_choose(command):
    assert "track" in inspect.signature(command).parameters


@pytest.mark.parametrize("options", [TranscribeOptions, ClassifyOptions, RestoreOptions])
def test_the_track_is_part_of_what_decides_a_result(options):
    assert asdict(options(track=2)) != asdict(options())


def test_the_reader_hears_the_chosen_track_and_hands_on_what_is_to_be_known(tmp_path):
    tracks = [(0.0, noise(1.0, level=0.0))], [(0.0, noise(1.0))]
    path = container(tmp_path / "two.mkv", *tracks, default=1)

    def heard(track):
        cut = partial(map, lambda block: Window(0.0, block))
        with closing(Reader([path], Recording, cut, track=track)) as reader:
            piece, file = reader
        return piece.window.samples.std() > 0.03, file.notes

    assert heard(None) == (False, ("has 2 audio tracks; track 1 was read (marked as default)",))
    assert heard(2) == (True, ("has 2 audio tracks; track 2 was read (as asked)",))


def test_a_restorer_reads_the_chosen_track(tmp_path):
    tracks = [(0.0, noise(1.0, level=0.0))], [(0.0, noise(1.0))]
    path = container(tmp_path / "two.mkv", *tracks, default=1)
    reading = _Reading(path, 2)
    with closing(reading):
        assert np.concatenate(list(reading.blocks())).std() > 0.03
        assert "track 2" in reading.notes[0]


def test_a_benchmark_of_a_track_hears_that_track_alone(tmp_path):
    tracks = [(0.0, noise(1.0, level=0.0))], [(0.0, noise(1.0))]
    rows = [
        Row("two", container(tmp_path / "two.mkv", *tracks, default=1)),
        Row("one", container(tmp_path / "one.mkv", *tracks[:1])),
    ]
    two, one = own_files.cut(rows, tmp_path / "clips", track=2)
    assert io.load(two.audio).samples.std() > 0.03
    with pytest.raises(AudioError):  # not the first track in its place
        io.load(one.audio)


@pytest.mark.parametrize("seconds", [0.5, 20.0, 3600.0])
def test_a_clock_leaves_room_for_a_gap_and_none_for_jitter(seconds):
    clock = Clock(1000, Fraction(1, 1000), late=0)
    stamps = [(7, 500), (507 + 30, 500), (1007 - 30, 500), (1507 + round(1000 * seconds), 500)]
    places = [clock.place(*stamp) for stamp in stamps]
    assert places == [0, 500, 1000, 1500 + round(1000 * seconds)]


def test_a_clock_that_is_set_leaves_no_room():
    clock = Clock(1000, Fraction(1, 1000), late=0)
    places = [clock.place(stamp, 500) for stamp in (20_000, 20_500, 0, 500, 10**9)]
    assert places == [0, 500, 1000, 1500, 2000]
    assert clock.restarts == 2


def test_slices_of_wma_begin_where_the_whole_does(tmp_path):
    with av.open(str(tmp_path / "a.wma"), "w", format="asf") as file:
        stream = file.add_stream("wmav2", rate=44_100, layout="mono", bit_rate=64_000)
        frame = av.AudioFrame.from_ndarray(noise(5.0, rate=44_100)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        for part in av.AudioResampler("fltp", "mono", 44_100, frame_size=2048).resample(frame):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    whole, part = (
        io.load(tmp_path / "a.wma", None, **slice) for slice in ({}, {"start": 3.5, "duration": 0.5})
    )
    expected = whole.samples[round(3.5 * 44_100) : round(4.0 * 44_100)]
    assert np.abs(part.samples - expected).max() < 1e-4
