"""One talker in a room and several microphones in it: of a recording, what each of them hears.

Sound reaches the microphones one after the other; the first to be reached hears it without delay. Each is
turned up until it is as loud as the recording was, as recorders do, so that what is far away is heard with
more of the room: by the image method (`rooms.py`), or as noise that decays, under which direct sound is as
much weaker as the talker is beyond the distance at which both are equal, 0.057 sqrt(volume / rt60).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from numpy.random import Generator, Philox
from pydantic import Field
from scipy.signal import fftconvolve

from ..io import Samples
from . import noise, rooms
from .rooms import Place
from .step import Scene, Settings, Span

ARRAYS = 200
"""Different rooms: each is computed once a process and drawn again and again."""
Kind = Literal["synthetic", "simulated"]
_ORDER = 17  # reflections followed; with several microphones more would take seconds
_NEAREST = 0.3  # metres from the talker


class Array(Settings):
    """Several microphones in one room, for `data.channels: views`.

    What comes before it sounds in the room; what comes after it is drawn for each microphone by itself.
    """

    kind: Literal["array"] = "array"
    views: Annotated[int, Field(ge=2, le=16)] = 4
    """How many microphones."""
    rt60: Span = (0.2, 0.8)
    """Seconds in which the room's sound decays by 60 dB."""
    rooms: Kind = "synthetic"
    """Noise that decays; or the image method in one of 200 shoeboxes, which needs pyroomacoustics."""

    def spread(self, x: Samples, scene: Scene) -> tuple[list[Samples], dict[str, Any]]:
        """What each microphone hears of a recording, and what was drawn."""
        number = int(scene.generator.integers(ARRAYS))
        responses, about = responses_of(number, self.views, self.rt60, self.rooms, scene.sample_rate)
        return heard(x, responses), {"room": number, **about}


def heard(x: Samples, responses: Sequence[Samples]) -> list[Samples]:
    """A recording by each of these responses, as loud as it was."""
    return [_as_loud(fftconvolve(x, one)[: len(x)], noise.rms(x)) for one in responses]


@lru_cache(maxsize=ARRAYS)
def responses_of(
    number: int, views: int, rt60: tuple[float, float], kind: Kind, sample_rate: int
) -> tuple[list[Samples], dict[str, Any]]:
    """The response of each microphone of room `number`, and what it is; the same in every process.

    Of two arrays of one number, the larger has the microphones of the smaller and more.
    """
    generator = Generator(Philox(key=(number, 1)))
    seconds = float(generator.uniform(*rt60))
    acoustics = rooms.package("array") if kind == "simulated" else None
    size, _ = rooms.drawn("array", seconds, generator, acoustics)
    talker = rooms.place_in(size, generator)
    places: list[Place] = []
    while len(places) < views:
        place = rooms.place_in(size, generator)
        if np.linalg.norm(place - talker) >= _NEAREST:
            places.append(place)
    distances = np.linalg.norm(np.array(places) - talker, axis=1)
    delays = ((distances - distances.min()) / rooms.SPEED * sample_rate).round().astype(int).tolist()
    if acoustics is not None:
        responses, complete = rooms.reflected(acoustics, size, talker, places, seconds, sample_rate, _ORDER)
        found = _from_direct(number, responses, delays, complete, seconds, sample_rate)
    else:
        equal = 0.057 * np.sqrt(size.prod() / seconds)
        direct = (20 * np.log10(equal / distances)).tolist()
        found = [rooms.synthetic(seconds, dB, sample_rate, _tail(number, v)) for v, dB in enumerate(direct)]
    late = [
        np.concatenate([np.zeros(d), one]).astype(np.float32) for d, one in zip(delays, found, strict=True)
    ]
    about = {"size": size.round(2).tolist(), "distances": distances.round(2).tolist()}
    return late, {"rt60": seconds, **about}


def _tail(number: int, view: int) -> Generator:
    return Generator(Philox(key=(number, 2 + view)))


def _from_direct(
    number: int,
    responses: Sequence[np.ndarray],
    delays: Sequence[int],
    complete: float,
    rt60: float,
    sample_rate: int,
) -> list[np.ndarray]:
    """The response of each microphone from its direct sound on."""
    # Of the nearest surely nothing is louder than the direct sound.
    first = int(np.abs(responses[delays.index(0)]).argmax())
    return [
        rooms.continued(response[first + delay :], complete, rt60, sample_rate, _tail(number, view))
        for view, (response, delay) in enumerate(zip(responses, delays, strict=True))
    ]


def _as_loud(x: np.ndarray, level: float) -> Samples:
    own = noise.rms(x)
    return noise.within_full_scale(x * (level / own) if own else x)
