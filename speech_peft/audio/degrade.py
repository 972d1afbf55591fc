"""Clean recordings made worse in known ways: noise, voices, rooms, microphones, telephones.

A clip's degradation depends on (seed, id, epoch) only, through a counter-based generator (Philox) for each
step: not on the worker, the order or the batch. Every step keeps the length and adds no delay, so that the
clean clip stays aligned with it. Levels are mean powers over the whole clip.

    data:
      degrade:
        - {kind: babble, snr: [0, 10], p: 0.5}
        - {kind: codec, codecs: [mulaw, gsm]}
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError, did_you_mean
from .degradations.array import Array
from .degradations.step import Pool, Scene
from .degradations.steps import Babble, BandLimit, Clip, Codec, Noise, OneOf, PacketLoss, Reverb, Sound, Step
from .io import Samples

_STEPS = TypeAdapter(tuple[Step, ...])

TELEPHONE: tuple[Step, ...] = (
    OneOf(
        steps=(
            Babble(snr=(-2.0, 8.0)),
            Noise(snr=(-2.0, 8.0), colors=("white", "pink", "brown")),
        )
    ),
    Codec(codecs=("mulaw",)),
)
"""A call from a noisy place: voices or coloured noise at -2 to 8 dB, then 8 kHz mu-law."""


def _restoration(reverb: Reverb) -> tuple[Step, ...]:
    # A recording's own order: the room, what else sounds in it, the microphone, the line.
    return (
        reverb,
        OneOf(
            p=0.8,
            steps=(
                Noise(snr=(-5.0, 30.0), colors=("white", "pink", "brown", "hum")),
                Noise(snr=(-5.0, 30.0), colors=("pink", "brown")),
                Babble(snr=(-5.0, 30.0)),
            ),
        ),
        BandLimit(p=0.25, low=(0.0, 300.0), high=(2000.0, 7000.0)),
        Clip(p=0.2, level=(0.5, 0.83), soft=0.5),  # gains of 1.2 to 2
        Codec(p=0.3, codecs=("mp3", "opus", "aac", "alaw", "mulaw", "gsm")),
        OneOf(
            p=0.15,
            steps=(PacketLoss(rate=(0.01, 0.1)), PacketLoss(rate=(0.02, 0.1), packet_seconds=(0.1, 0.5))),
        ),
    )


RESTORATION = _restoration(Reverb(p=0.35, rt60=(0.2, 0.9)))
"""What restorers are trained on: the ranges of Miipher-2's open relatives (Open-Miipher-2, Sidon), joined.

SNR -5 to 30 dB, RT60 0.2 to 0.9 s, band limits of 2 to 7 kHz, clipping by gains of 1.2 to 2 (half soft),
codecs (no AMR-WB and no Vorbis: no encoder of them is here), lost packets of 20 ms and holes of 0.1 to 0.5 s.
Noise is made, not recorded: add your own with `{kind: noise, files: [...]}`. Babble needs other utterances.
The share of clips left clean is `data.clean`."""
RESTORATION_ROOMS = _restoration(Reverb(p=0.35, rt60=(0.2, 0.9), rooms="simulated"))
"""The same in simulated rooms; needs pyroomacoustics."""

PRESETS: Mapping[str, tuple[Step, ...]] = {
    "telephone": TELEPHONE,
    "restoration": RESTORATION,
    "restoration_rooms": RESTORATION_ROOMS,
}


def parse(steps: str | Sequence[str | Mapping[str, Any]]) -> tuple[Step, ...]:
    """Steps as a recipe writes them: tables with a `kind`, and names of presets for the steps of these."""
    parsed: list[Step] = []
    for number, step in enumerate([steps] if isinstance(steps, str) else steps):
        if isinstance(step, str):
            if step not in PRESETS:
                raise ConfigError(
                    f"degrade[{number}]: no preset is called {step!r}. {did_you_mean(step, PRESETS)}"
                )
            parsed.extend(PRESETS[step])
            continue
        try:
            parsed.extend(_STEPS.validate_python([step]))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"][2:])
            raise ConfigError(f"degrade[{number}]{where and '.' + where}: {first['msg']}") from error
    return tuple(parsed)


@dataclass(frozen=True)
class Degraded:
    """The samples, and what was done to them in order: one dict a step, with its `kind` and what it drew."""

    samples: Samples
    applied: tuple[Mapping[str, Any], ...]
    clean: Samples
    """The clip before anything was done to it but a change of speed, sample by sample beside `samples`."""
    views: tuple[Samples, ...]
    """What each microphone heard, where there are several; the first of them is `samples`."""


@dataclass(frozen=True)
class Degrader:
    """A list of steps and a seed.

    `clean` is the share of clips left as they are. `variants` makes the degradations of one clip finite: the
    epoch counts modulo it, so that epoch `variants` hears epoch 0 again and a cache can hold all of them.
    """

    steps: Sequence[Step]
    seed: int = 0
    clean: float = 0.0
    variants: int | None = None

    def __call__(
        self,
        samples: Samples,
        sample_rate: int,
        *,
        id: str,
        epoch: int = 0,
        pool: Pool | None = None,
        stranger: Pool | None = None,
    ) -> Degraded:
        return self.of_views((samples,), sample_rate, id=id, epoch=epoch, pool=pool, stranger=stranger)

    def of_views(
        self,
        views: Sequence[Samples],
        sample_rate: int,
        *,
        id: str,
        epoch: int = 0,
        pool: Pool | None = None,
        stranger: Pool | None = None,
    ) -> Degraded:
        """The same of a recording by several microphones: each step is drawn for each of them by itself, a
        change of speed once for all. `array` leaves it as it is."""
        variant = self.variant(epoch)
        if self._generator(id, variant, "clean").random() < self.clean:
            return Degraded(views[0], (), views[0], tuple(views))
        heard, applied = [np.asarray(x, np.float32) for x in views], []
        clean, length = heard[0], len(heard[0])
        for place, step in enumerate(self.steps):

            def scene(which: str = "", purpose: str = f"{place} {step.kind}") -> Scene:
                # A generator for each step: what one step draws never shifts what the next one does.
                return Scene(sample_rate, self._generator(id, variant, purpose + which), pool, stranger)

            heard, drawn = (
                _spread(step, heard, scene()) if isinstance(step, Array) else _each(step, heard, scene)
            )
            applied += drawn
            if step.stretch != (1.0, 1.0):
                clean = heard[0]
        shortest, longest = self.stretch
        if not shortest * length - 1 <= len(heard[0]) <= longest * length + 1:
            raise AssertionError(
                f"{[step.kind for step in self.steps]}: {length} samples became {len(heard[0])}"
            )
        return Degraded(heard[0], tuple(applied), clean, tuple(heard))

    @property
    def stretch(self) -> tuple[float, float]:
        """How many times as long a clip comes out of all steps, at least and at most."""
        each = [(min(1.0, s.stretch[0]), max(1.0, s.stretch[1])) for s in self.steps]
        return math.prod(low for low, _ in each), math.prod(high for _, high in each)

    @property
    def stretches_late(self) -> bool:
        """Whether a step changes the speed of what others have made worse: no clean clip lies beside it."""
        stretches = [step.stretch != (1.0, 1.0) for step in self.steps]
        return stretches != sorted(stretches, reverse=True)

    @property
    def needs_others(self) -> bool:
        """Whether some step is made of other utterances, so that one alone cannot be degraded."""
        return any(step.kind in ("babble", "talker") and step.p > 0 for step in self.steps)

    def variant(self, epoch: int) -> int:
        """Which of a clip's degradations an epoch hears."""
        return epoch if self.variants is None else epoch % self.variants

    def _generator(self, id: str, variant: int, purpose: str) -> Generator:
        digest = hashlib.sha256(f"{self.seed}\n{id}\n{variant}\n{purpose}".encode()).digest()
        return Generator(Philox(key=int.from_bytes(digest[:16], "big")))


_Applied = list[dict[str, Any]]


def _spread(step: Array, heard: list[Samples], scene: Scene) -> tuple[list[Samples], _Applied]:
    """One recording as several microphones hear it."""
    if len(heard) > 1 or scene.generator.random() >= step.p:
        return heard, []
    views, drawn = step.spread(heard[0], scene)
    return views, [{"kind": step.kind, **drawn}]


def _each(step: Sound, heard: list[Samples], scene: Callable[[str], Scene]) -> tuple[list[Samples], _Applied]:
    """Each view made worse by itself, the first as if it were alone."""
    together, made, applied = step.stretch != (1.0, 1.0), [], []
    for view, x in enumerate(heard):
        own = scene("" if together or not view else f" {view}")
        if own.generator.random() < step.p:
            x, drawn = step.apply(x, own)
            applied.append({"kind": step.kind, **drawn, **({"view": view + 1} if len(heard) > 1 else {})})
        made.append(x)
    return made, applied
