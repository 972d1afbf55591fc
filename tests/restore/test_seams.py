"""Windows cover a recording once, and join at even power."""

import numpy as np
import pytest

from speech_peft.errors import ConfigError
from speech_peft.restore.seams import FADE, RATE, TAIL, Joiner, Layout, crossfade, stretches
from tests.identity import snr, sound


@pytest.mark.parametrize("seconds", [0.001, 1.0, 1.9, 2.0, 2.1, 7.33])
@pytest.mark.parametrize("block", [997, 160_000])
def test_windows_that_are_left_alone_join_to_what_came(seconds, block):
    layout, came = Layout.of(2.0, 0.2), sound(seconds, RATE, 2)
    joiner, done = Joiner(RATE), []
    for stretch in stretches((came[i : i + block] for i in range(0, len(came), block)), layout):
        assert len(stretch.samples) <= layout.window
        done.append(joiner.add(stretch, stretch.samples))
    made = np.concatenate([*done, joiner.rest()])
    assert made.shape == came.shape
    assert snr(came, made) > 100


def test_what_a_model_does_near_the_edges_of_windows_is_thrown_away():
    layout, came = Layout.of(2.0, 0.2), sound(6.0, RATE)
    joiner, done = Joiner(RATE), []
    found = list(stretches([came], layout))
    for i, stretch in enumerate(found):
        made = stretch.samples.copy()
        if i:
            made[: layout.context] = 9.0
        if i < len(found) - 1:
            made[-layout.context :] = 9.0
        done.append(joiner.add(stretch, made))
    assert snr(came, np.concatenate([*done, joiner.rest()])) > 100
    assert not found[-1].samples[-TAIL:].any()


def test_a_fade_keeps_the_power_of_equals_and_of_strangers():
    a, b = sound(2.0, RATE, seed=1), sound(2.0, RATE, seed=2)
    a, b = (x / np.sqrt(np.square(x).mean()) for x in (a, b))
    assert np.allclose(crossfade(a, a), a, atol=1e-5)
    assert np.square(crossfade(a, b)).mean() == pytest.approx(1.0, abs=0.05)
    assert not crossfade(0 * a, 0 * b).any()
    assert FADE % 2 == 0


def test_a_window_that_keeps_nothing_is_refused():
    with pytest.raises(ConfigError, match="window"):
        Layout.of(2.0, 1.0)
