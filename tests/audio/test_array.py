"""The step `array`: one recording as several microphones of a room hear it."""

import sys

import numpy as np
import pytest

from speech_peft.audio.degradations.array import Array, responses_of
from speech_peft.audio.degradations.noise import rms
from speech_peft.audio.degradations.steps import Noise, Speed
from speech_peft.audio.degrade import Degrader, parse
from speech_peft.errors import ConfigError

RATE = 16_000
CLIP = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)


@pytest.fixture
def rooms(monkeypatch):
    """Rooms of a few taps, so that no simulation runs."""

    def few(number, views, *_):
        taps = [np.eye(1, 40, 7 * view, dtype=np.float32)[0] for view in range(views)]
        return taps, {"distances": [1.0] * views}

    monkeypatch.setattr("speech_peft.audio.degradations.array.responses_of", few)


def test_each_microphone_hears_the_clip_at_its_own_delay_as_loud_as_it_was(rooms):
    made = Degrader([Array(views=3)])(CLIP, RATE, id="a")
    assert made.samples is made.views[0]
    for view, heard in enumerate(made.views):
        assert rms(heard) == pytest.approx(rms(CLIP), rel=1e-5)
        np.testing.assert_allclose(
            heard[7 * view :], CLIP[: RATE - 7 * view] * heard[7 * view] / CLIP[0], atol=1e-4
        )


def test_what_comes_after_is_drawn_for_each_and_the_first_as_if_alone(rooms):
    steps = [Array(views=3), Noise(snr=(-5, 20))]
    made = Degrader(steps)(CLIP, RATE, id="a")
    noises = [drawn for drawn in made.applied if drawn["kind"] == "noise"]
    assert [drawn["view"] for drawn in noises] == [1, 2, 3]
    assert len({drawn["snr"] for drawn in noises}) == 3
    again = Degrader(steps)(CLIP, RATE, id="a")
    assert all(map(np.array_equal, made.views, again.views))


def test_a_change_of_speed_is_one_for_all_and_real_microphones_stay_in_their_room(rooms):
    made = Degrader([Array(views=2), Speed(rate=(0.8, 1.2))]).of_views((CLIP, CLIP), RATE, id="a")
    np.testing.assert_array_equal(made.views[0], made.views[1])
    assert len(made.views) == 2
    assert [drawn["kind"] for drawn in made.applied] == ["speed", "speed"]


def test_one_recording_is_degraded_as_it_was_before_there_were_several():
    steps = [Noise(), Speed()]
    alone = Degrader(steps)(CLIP, RATE, id="a")
    several = Degrader(steps).of_views((CLIP, CLIP), RATE, id="a")
    np.testing.assert_array_equal(alone.samples, several.samples)
    assert not np.array_equal(*several.views)


def test_an_array_among_the_steps_of_one_of_is_refused():
    with pytest.raises(ConfigError, match="array"):
        parse([{"kind": "one_of", "steps": [{"kind": "array"}]}])


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(
        ConfigError, match=r"degrade array: rooms: simulated needs pyroomacoustics: pip install"
    ):
        Degrader([Array(rt60=(0.11, 0.12), rooms="simulated")])(CLIP, RATE, id="a")


@pytest.mark.parametrize("rooms", ["synthetic", "simulated"])
def test_a_room_has_the_same_microphones_again_and_a_larger_array_has_more(rooms):
    if rooms == "simulated":
        pytest.importorskip("pyroomacoustics", reason="the extra `restore` is not installed")
    four, about = responses_of(3, 4, (0.3, 0.4), rooms, RATE)
    six, more = responses_of(3, 6, (0.3, 0.4), rooms, RATE)
    assert more["distances"][:4] == about["distances"]
    assert len(set(more["distances"])) == 6
    assert min(int(np.abs(one).argmax()) for one in four) == 0
    # Nothing is heard before sound can be there.
    metres = np.subtract(more["distances"], min(more["distances"]))
    for one, far in zip(six, metres, strict=True):
        heard = np.flatnonzero(np.abs(one) > 0.1 * np.abs(one).max())
        assert heard[0] == pytest.approx(far / 343 * RATE, abs=3)


def test_a_microphone_farther_away_hears_more_of_the_room():
    responses, about = responses_of(5, 6, (0.5, 0.5), "synthetic", RATE)
    direct = [float(np.abs(one).max() ** 2 / np.square(one).sum()) for one in responses]
    assert np.argsort(direct).tolist() == np.argsort(about["distances"])[::-1].tolist()
