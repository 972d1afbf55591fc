"""Whose voice each clip is, for what needs others of the same speaker, or of another one."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.random import Generator

from ...audio.io import Samples
from ...audio.manifest import Row
from ...errors import ConfigError

_ENROL = 7  # apart from what else is drawn for (seed, epoch, clip)


class Voices:
    """The speakers of some rows, and clips of them; `load` gives a row's samples."""

    def __init__(self, rows: Sequence[Row], load: Callable[[int], Samples], sample_rate: int):
        self.rows, self.load, self.sample_rate = rows, load, sample_rate

    @cached_property
    def _clips(self) -> dict[str, list[int]]:
        """By speaker, the places of the clips. Raises ConfigError where a row names none."""
        found: dict[str, list[int]] = {}
        for place, row in enumerate(self.rows):
            if not row.speaker:
                raise ConfigError(
                    f"{row.id}: the manifest names no speaker, and other clips of hers are wanted"
                )
            found.setdefault(row.speaker, []).append(place)
        if len(found) < 2:
            raise ConfigError(
                f"the manifest has one speaker, {next(iter(found), 'none')}, and two are wanted"
            )
        return found

    def check(self) -> None:
        """Raise ConfigError where a row names no speaker, or there is only one."""
        _ = self._clips

    def stranger(self, index: int, generator: Generator) -> Samples:
        """A clip of another speaker; every other speaker is as likely."""
        others = [speaker for speaker in self._clips if speaker != self.rows[index].speaker]
        clips = self._clips[others[int(generator.integers(len(others)))]]
        return self.load(clips[int(generator.integers(len(clips)))])

    def same(self, index: int, seconds: tuple[float, float], seed: int, epoch: int) -> Samples:
        """Other clips of a clip's speaker, one after the other, as long as was drawn; empty where there are
        none."""
        generator = np.random.default_rng((seed, epoch, index, _ENROL))
        wanted = round(generator.uniform(*seconds) * self.sample_rate)
        clips = [place for place in self._clips[self.rows[index].speaker or ""] if place != index]
        parts, length = [np.zeros(0, np.float32)], 0
        for place in generator.permutation(clips):
            parts.append(self.load(int(place)))
            length += len(parts[-1])
            if length >= wanted:
                break
        return np.concatenate(parts)[:wanted]
