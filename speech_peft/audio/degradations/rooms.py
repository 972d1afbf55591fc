"""Rooms as impulse responses: what a clap would leave on the recording.

`synthetic` is the direct sound and then noise that decays; it costs nothing. `simulated` is a shoebox with a
talker and a microphone in it: its early reflections come from where walls are (the image method of Allen &
Berkley 1979, by pyroomacoustics), and noise of their strength goes on where the images end.
"""

import math
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.random import Generator, Philox

from ...errors import ConfigError
from ..io import Samples

ROOMS = 500
"""Different simulated rooms: each is computed once a process and drawn again and again."""
# Metres, shorter and longer sides and height: those of Open-Miipher-2.
SIDES, HEIGHT = (2.0, 10.0), (2.0, 5.0)
FROM_WALL, _DISTANCE = 0.3, (0.3, 3.0)
_ORDER = 24  # reflections followed: three times as many would take 27 times as long
SPEED = 343.0
TRIES = 200


def synthetic(rt60: float, direct: float, sample_rate: int, generator: Generator) -> Samples:
    """The direct sound, `direct` dB above all that follows: noise that falls by 60 dB in `rt60` seconds."""
    time = np.arange(max(2, round(rt60 * sample_rate))) / sample_rate
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / max(rt60, 1e-3))
    tail[time < 0.002] = 0.0  # the nearest wall
    energy = float(np.square(tail).sum())
    tail *= np.sqrt(10 ** (-direct / 10) / energy) if energy else 0.0
    tail[0] = 1.0
    return tail.astype(np.float32)


def package(who: str, instead: str = "") -> Any:
    """pyroomacoustics; raises ConfigError where it is not installed."""
    try:
        return import_module("pyroomacoustics")
    except ImportError:
        raise ConfigError(
            f"{who} needs pyroomacoustics: pip install 'speech_peft[restore]'{instead}"
        ) from None


@lru_cache(maxsize=ROOMS)
def simulated(number: int, rt60: tuple[float, float], sample_rate: int) -> tuple[Samples, dict[str, Any]]:
    """Room `number`: its response from the direct sound on, and what it is; the same in every process."""
    pyroomacoustics = package("degrade reverb: rooms: simulated", "; rooms: synthetic needs nothing")
    generator = Generator(Philox(key=number))
    seconds = float(generator.uniform(*rt60))
    for _ in range(TRIES):
        size = np.array([*generator.uniform(*SIDES, 2), generator.uniform(*HEIGHT)])
        talker, microphone = (generator.uniform(FROM_WALL, size - FROM_WALL) for _ in range(2))
        distance = float(np.linalg.norm(talker - microphone))
        try:
            absorption, order = pyroomacoustics.inverse_sabine(seconds, size)
        except ValueError:  # no wall absorbs enough for so short a tail in so large a room
            continue
        if _DISTANCE[0] <= distance <= _DISTANCE[1]:
            break
    else:
        raise ConfigError(f"degrade reverb: no room of 2 to 10 m sides has an rt60 of {seconds:.2f} s")
    order = min(order, _ORDER)
    room = pyroomacoustics.ShoeBox(
        size, fs=sample_rate, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    room.add_source(talker)
    room.add_microphone(microphone)
    room.compute_rir()
    response = np.asarray(room.rir[0][0], np.float64)
    response = response[np.abs(response).argmax() :]
    complete = order * float(size.min()) / SPEED  # later, images of higher orders would be missing
    response = continued(response, complete, seconds, sample_rate, generator)
    about = {"rt60": seconds, "size": [round(float(side), 2) for side in size], "distance": distance}
    return (response / response[0]).astype(np.float32), about


def continued(
    response: np.ndarray, complete: float, rt60: float, sample_rate: int, generator: Generator
) -> np.ndarray:
    """The response up to `complete` seconds, then noise from its level there down to -60 dB."""
    end, length = round(complete * sample_rate), round(rt60 * sample_rate)
    if end >= min(length, len(response)):
        return response[:length]
    window = response[max(1, end - round(0.02 * sample_rate)) : end]
    level = math.sqrt(float(np.mean(np.square(window)))) if len(window) else 0.0
    time = np.arange(length - end) / sample_rate
    noise = generator.standard_normal(length - end) * level * 10 ** (-3 * time / rt60)
    return np.concatenate([response[:end], noise])
