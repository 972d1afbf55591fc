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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError, did_you_mean
from .io import Samples
from .steps import Babble, Codec, Noise, OneOf, Pool, Scene, Step

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
PRESETS: Mapping[str, tuple[Step, ...]] = {"telephone": TELEPHONE}


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
        self, samples: Samples, sample_rate: int, *, id: str, epoch: int = 0, pool: Pool | None = None
    ) -> Degraded:
        variant = self.variant(epoch)
        if self._generator(id, variant, "clean").random() < self.clean:
            return Degraded(samples, ())
        x, applied = np.asarray(samples, np.float32), []
        for place, step in enumerate(self.steps):
            # A generator for each step: what one step draws never shifts what the next one does.
            scene = Scene(sample_rate, self._generator(id, variant, f"{place} {step.kind}"), pool)
            if scene.generator.random() < step.p:
                x, drawn = step.apply(x, scene)
                applied.append({"kind": step.kind, **drawn})
        if len(x) != len(samples):
            raise AssertionError(
                f"{[step.kind for step in self.steps]}: {len(samples)} samples became {len(x)}"
            )
        return Degraded(x, tuple(applied))

    def variant(self, epoch: int) -> int:
        """Which of a clip's degradations an epoch hears."""
        return epoch if self.variants is None else epoch % self.variants

    def _generator(self, id: str, variant: int, purpose: str) -> Generator:
        digest = hashlib.sha256(f"{self.seed}\n{id}\n{variant}\n{purpose}".encode()).digest()
        return Generator(Philox(key=int.from_bytes(digest[:16], "big")))
