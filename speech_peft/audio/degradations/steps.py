"""The steps of a degradation: each one way of making a recording worse, with what it may draw from."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import soxr
from pydantic import AfterValidator, Field
from scipy.signal import fftconvolve

from ...errors import ConfigError
from .. import io
from ..io import Samples
from ..manifest import recordings
from . import codec, noise, rooms
from .array import Array
from .filters import BandLimit, Notch, Tilt
from .step import BaseStep, Result, Scene, Share, Span, positive


class Noise(BaseStep):
    """Stationary noise of a colour, or stretches of recorded noise."""

    kind: Literal["noise"] = "noise"
    snr: Span = (0.0, 20.0)  # dB
    colors: tuple[Literal["white", "pink", "brown", "hum"], ...] = ("white", "pink", "brown")
    files: tuple[str, ...] = ()  # recordings or folders of them; given, they replace the colours

    def apply(self, x: Samples, scene: Scene) -> Result:
        snr = scene.uniform(self.snr)
        if self.files:
            path = scene.choice(_files(self.files))
            sound = noise.recorded(path, len(x), scene.sample_rate, scene.generator)
            return noise.mix(x, sound, snr), {"file": str(path), "snr": snr}
        color = scene.choice(self.colors)
        sound = noise.colored(color, len(x), scene.sample_rate, scene.generator)
        return noise.mix(x, sound, snr), {"color": color, "snr": snr}


class Babble(BaseStep):
    """Other people talking: several utterances of the pool at once, each looped from a random point."""

    kind: Literal["babble"] = "babble"
    snr: Span = (0.0, 20.0)
    voices: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (3, 7)

    def apply(self, x: Samples, scene: Scene) -> Result:
        if scene.pool is None:
            raise ConfigError("degrade babble: needs a pool of other utterances, and none was given")
        snr, voices = (
            scene.uniform(self.snr),
            int(scene.generator.integers(self.voices[0], self.voices[1] + 1)),
        )
        babble = np.zeros(len(x), np.float32)
        for _ in range(voices):
            voice = scene.pool(scene.generator)
            voice = np.roll(voice, -int(scene.generator.integers(len(voice))))
            babble += np.resize(voice, len(x)) / max(noise.rms(voice), 1e-6)
        return noise.mix(x, babble, snr), {"voices": voices, "snr": snr}


class Talker(BaseStep):
    """One other person talking at the same time, as loud as `snr` says, from a random moment on."""

    kind: Literal["talker"] = "talker"
    snr: Span = (0.0, 0.0)
    """dB of the clip over the other voice, each by its own mean power."""

    def apply(self, x: Samples, scene: Scene) -> Result:
        if scene.stranger is None:
            raise ConfigError("degrade talker: needs utterances of other speakers, and none were given")
        voice, snr = scene.stranger(scene.generator), scene.uniform(self.snr)
        speech, level = noise.rms(x), noise.rms(voice)
        if not speech or not level:
            return x, {"snr": snr}
        starts = sorted((0, len(x) - len(voice)))  # inside the clip, or a part as long as it
        start = int(scene.generator.integers(starts[0], starts[1] + 1))
        other = np.zeros(len(x), np.float32)
        part = voice[max(0, -start) : len(x) - start]
        other[max(0, start) : max(0, start) + len(part)] = part
        mixed = x + other * np.float32(speech / level * 10 ** (-snr / 20))
        return noise.within_full_scale(mixed), {"snr": snr}


class Clip(BaseStep):
    """Flat tops: everything above a share of the peak is cut off, or bent towards it."""

    kind: Literal["clip"] = "clip"
    level: Span = (0.1, 0.6)
    soft: Share = 0.0
    """How often it is bent (tanh) and not cut."""

    def apply(self, x: Samples, scene: Scene) -> Result:
        level = scene.uniform(self.level)
        top = level * float(np.abs(x).max())
        if self.soft and top and scene.generator.random() < self.soft:
            return (top * np.tanh(x / top)).astype(np.float32), {"level": level, "shape": "soft"}
        return np.clip(x, -top, top), {"level": level}


class Reverb(BaseStep):
    """A room (`rooms.py`) whose sound decays by 60 dB in `rt60` seconds; or measured responses."""

    kind: Literal["reverb"] = "reverb"
    rt60: Span = (0.2, 0.8)
    rooms: Literal["synthetic", "simulated"] = "synthetic"
    """Noise that decays; or one of 500 shoeboxes, for which pyroomacoustics must be installed."""
    direct: Span = (0.0, 12.0)  # synthetic: dB of the direct sound over all that follows
    files: tuple[str, ...] = ()  # measured responses, or folders of them; given, they replace the rooms

    def apply(self, x: Samples, scene: Scene) -> Result:
        if self.files:
            path = scene.choice(_files(self.files))
            response = io.load(path, scene.sample_rate).samples
            drawn: dict[str, Any] = {"file": str(path)}
        elif self.rooms == "simulated":
            number = int(scene.generator.integers(rooms.ROOMS))
            response, about = rooms.simulated(number, self.rt60, scene.sample_rate)
            drawn = {"room": number, **about}
        else:
            drawn = {"rt60": scene.uniform(self.rt60), "direct": scene.uniform(self.direct)}
            response = rooms.synthetic(drawn["rt60"], drawn["direct"], scene.sample_rate, scene.generator)
        response = response[np.abs(response).argmax() :]  # what comes before the direct sound is travel time
        response = response / response[0]
        return fftconvolve(x, response)[: len(x)].astype(np.float32), drawn


class Codec(BaseStep):
    """Encoded and decoded again."""

    kind: Literal["codec"] = "codec"
    codecs: Annotated[tuple[codec.Name, ...], Field(min_length=1)] = (
        "mulaw",
        "alaw",
        "gsm",
        "mp3",
        "opus",
        "aac",
    )
    kbit_per_second: Span | None = None  # None: each codec's own span for speech

    def apply(self, x: Samples, scene: Scene) -> Result:
        name = scene.choice(self.codecs)
        span = codec.CODECS[name].bit_rates and (self.kbit_per_second or codec.CODECS[name].bit_rates)
        drawn = {"codec": name} | ({"kbit_per_second": scene.uniform(span)} if span else {})
        return codec.transcode(x, scene.sample_rate, name, drawn.get("kbit_per_second")), drawn


class Gain(BaseStep):
    """Louder or softer, in dB."""

    kind: Literal["gain"] = "gain"
    db: Span = (-12.0, 6.0)

    def apply(self, x: Samples, scene: Scene) -> Result:
        db = scene.uniform(self.db)
        return (x * 10 ** (db / 20)).astype(np.float32), {"db": db}


class Speed(BaseStep):
    """Played faster or slower, pitch and formants with it: another speaker's, more or less (Ko et al. 2015).

    No alignment with the recording is left, so restoration cannot have it.
    """

    kind: Literal["speed"] = "speed"
    rate: Annotated[Span, AfterValidator(positive)] = (0.9, 1.1)

    @property
    def stretch(self) -> tuple[float, float]:
        return 1 / self.rate[1], 1 / self.rate[0]

    def apply(self, x: Samples, scene: Scene) -> Result:
        rate = scene.uniform(self.rate)
        return soxr.resample(x, rate * scene.sample_rate, scene.sample_rate, "MQ"), {"rate": rate}


class PacketLoss(BaseStep):
    """Packets that never came, heard as silence."""

    kind: Literal["packet_loss"] = "packet_loss"
    rate: Span = (0.01, 0.1)
    packet_seconds: Annotated[Span, AfterValidator(positive)] = (0.02, 0.02)

    def apply(self, x: Samples, scene: Scene) -> Result:
        rate, (low, high) = scene.uniform(self.rate), self.packet_seconds
        # One length draws nothing, so that what else this step draws stays as it was with older recipes.
        seconds = low if low == high else scene.uniform(self.packet_seconds)
        size = max(1, round(seconds * scene.sample_rate))
        arrived = scene.generator.random(-(-len(x) // size)) >= rate
        return x * np.repeat(arrived, size)[: len(x)].astype(np.float32), {
            "rate": rate,
            "packet_seconds": seconds,
        }


class OneOf(BaseStep):
    """One of several steps, each as likely."""

    kind: Literal["one_of"] = "one_of"
    steps: "Annotated[tuple[Sound, ...], Field(min_length=1)]"

    @property
    def stretch(self) -> tuple[float, float]:
        each = [step.stretch for step in self.steps]
        return min(low for low, _ in each), max(high for _, high in each)

    def apply(self, x: Samples, scene: Scene) -> Result:
        step = scene.choice(self.steps)
        x, drawn = step.apply(x, scene)
        return x, {"step": step.kind, **drawn}


Sound = Annotated[
    Noise
    | Babble
    | Talker
    | BandLimit
    | Notch
    | Tilt
    | Clip
    | Reverb
    | Codec
    | Gain
    | Speed
    | PacketLoss
    | OneOf,
    Field(discriminator="kind"),
]
"""What one recording stays one in."""
Step = Annotated[Sound | Array, Field(discriminator="kind")]
OneOf.model_rebuild()


@lru_cache(maxsize=64)
def _files(names: tuple[str, ...]) -> Sequence[Path]:
    found = list(_each(names))
    if not found:
        raise ConfigError(f"degrade: no recordings in {', '.join(names)}")
    return found


def _each(names: Iterable[str]) -> Iterable[Path]:
    for name in names:
        yield from recordings(name) if Path(name).is_dir() else [Path(name)]
