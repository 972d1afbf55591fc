"""Rooms as impulse responses: what a clap would leave on the recording.

`synthetic` is the direct sound and then noise that decays; it costs nothing. `simulated` is a shoebox with a
talker and a microphone in it: its early reflections come from where walls are (the image method of Allen &
Berkley 1979, by pyroomacoustics), and noise of their strength goes on where the images end.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.random import Generator, Philox

from ...errors import ConfigError
from ..io import Samples

ROOMS = 500
"""Different simulated rooms: each is computed once a process and drawn again and again."""
# Metres, shorter and longer sides and height: those of Open-Miipher-2.
_SIDES, _HEIGHT = (2.0, 10.0), (2.0, 5.0)
_FROM_WALL, _DISTANCE = 0.3, (0.3, 3.0)
_ORDER = 24  # reflections followed: three times as many would take 27 times as long
SPEED = 343.0
_TRIES = 200
Place = Float64[np.ndarray, " 3"]


def synthetic(rt60: float, direct: float, sample_rate: int, generator: Generator) -> Samples:
    """The direct sound, `direct` dB above all that follows: noise that falls by 60 dB in `rt60` seconds."""
    time = np.arange(max(2, round(rt60 * sample_rate))) / sample_rate
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / max(rt60, 1e-3))
    tail[time < 0.002] = 0.0  # the nearest wall
    energy = float(np.square(tail).sum())
    tail *= np.sqrt(10 ** (-direct / 10) / energy) if energy else 0.0
    tail[0] = 1.0
    return tail.astype(np.float32)


def package(step: str) -> Any:
    """pyroomacoustics; raises ConfigError where it is not installed."""
    try:
        return import_module("pyroomacoustics")
    except ImportError:
        raise ConfigError(
            f"degrade {step}: rooms: simulated needs pyroomacoustics: pip install 'speech_peft[restore]'; "
            "rooms: synthetic needs nothing"
        ) from None


@lru_cache(maxsize=ROOMS)
def simulated(number: int, rt60: tuple[float, float], sample_rate: int) -> tuple[Samples, dict[str, Any]]:
    """Room `number`: its response from the direct sound on, and what it is; the same in every process."""
    acoustics = package("reverb")
    generator = Generator(Philox(key=number))
    seconds = float(generator.uniform(*rt60))
    size, (talker, microphone) = drawn("reverb", seconds, generator, acoustics, _DISTANCE)
    (response,), complete = reflected(acoustics, size, talker, [microphone], seconds, sample_rate, _ORDER)
    response = response[np.abs(response).argmax() :]
    response = continued(response, complete, seconds, sample_rate, generator)
    distance = float(np.linalg.norm(talker - microphone))
    about = {"rt60": seconds, "size": [round(float(side), 2) for side in size], "distance": distance}
    return (response / response[0]).astype(np.float32), about


def drawn(
    step: str, rt60: float, generator: Generator, acoustics: Any, apart: tuple[float, float] | None = None
) -> tuple[Place, list[Place]]:
    """The sides of a room that can decay so fast, and two places in it that are so many metres `apart`.

    With `apart` None no places are drawn, and without `acoustics` (pyroomacoustics) any room will do. Raises
    ConfigError, which names the `step`, where no room is found.
    """
    for _ in range(_TRIES):
        size = np.array([*generator.uniform(*_SIDES, 2), generator.uniform(*_HEIGHT)])
        places = [] if apart is None else [place_in(size, generator) for _ in range(2)]
        if acoustics is not None and not _absorbs(acoustics, rt60, size):
            continue
        if apart is None or apart[0] <= np.linalg.norm(places[0] - places[1]) <= apart[1]:
            return size, places
    raise ConfigError(f"degrade {step}: no room of 2 to 10 m sides has an rt60 of {rt60:.2f} s")


def place_in(size: Place, generator: Generator) -> Place:
    """Somewhere in a room, not at its walls."""
    return generator.uniform(_FROM_WALL, size - _FROM_WALL)


def _absorbs(acoustics: Any, rt60: float, size: Place) -> bool:
    try:
        acoustics.inverse_sabine(rt60, size)
    except ValueError:  # no wall absorbs enough for so short a tail in so large a room
        return False
    return True


def reflected(
    acoustics: Any,
    size: Place,
    talker: Place,
    microphones: Sequence[Place],
    rt60: float,
    sample_rate: int,
    order: int,
) -> tuple[list[Float64[np.ndarray, " n"]], float]:
    """What each microphone hears of a clap, by reflections up to an `order`; and the seconds up to which
    none of a higher one is missing."""
    absorption, enough = acoustics.inverse_sabine(rt60, size)
    order = min(order, enough)
    room = acoustics.ShoeBox(size, fs=sample_rate, materials=acoustics.Material(absorption), max_order=order)
    room.add_source(talker)
    for place in microphones:
        room.add_microphone(place)
    room.compute_rir()
    return [np.asarray(one[0], np.float64) for one in room.rir], order * float(size.min()) / SPEED


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
