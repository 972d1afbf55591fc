"""A minute of a manifest through the model, and what all of it takes at that speed: plain arithmetic."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..audio import io
from ..audio.containers.held import size_of
from ..errors import AudioError, ConfigError
from ..folders.inputs import Job
from ..folders.outcomes.outcome import Outcome
from ..shards.blocks import Cut

_PLACES = 50  # of the manifest, from which rows are taken
_MOST_ROWS = 2000
_GOLDEN = 0.6180339887  # whose multiples, less their whole parts, spread evenly


@dataclass(frozen=True)
class Sample:
    """Rows from all over a manifest."""

    jobs: tuple[Job, ...]
    seconds: float
    """Of audio in them."""
    bytes: int
    rows: int
    """Of the whole manifest; of JSON lines a guess from the first."""

    @property
    def hours(self) -> float:
        """Of the whole manifest, if the rest is like these rows."""
        return self.seconds / max(1, len(self.jobs)) * self.rows / 3600


@dataclass(frozen=True)
class Speed:
    """What one process did with the sample."""

    audio_seconds: float
    work_seconds: float
    opening_seconds: float
    bytes_out: int
    failed: int

    @property
    def rtfx(self) -> float:
        return self.audio_seconds / self.work_seconds


@dataclass(frozen=True)
class Prices:
    """In one currency, whichever it is."""

    machine_hour: float = 0.0
    gigabyte_month: float = 0.0
    """Of storage."""
    gigabyte_out: float = 0.0
    """Of reading what is stored, where that costs."""


@dataclass(frozen=True)
class Estimate:
    """What all rows take."""

    audio_hours: float
    rtfx: float
    """Of one process."""
    process_hours: float
    machine_hours: float
    machines: int
    """That end in the days given."""
    gigabytes_in: float
    gigabytes_out: float
    money: float
    money_per_thousand_hours: float


def sampled(inputs: list[str], suffixes: frozenset[str], seconds: float) -> Sample:
    """Rows from all over, until there are so many seconds. Raises ConfigError where none is read."""
    cut = Cut(inputs, suffixes, _PLACES)
    rows = cut.rows()
    jobs: list[Job] = []
    total, size = 0.0, 0
    for job in islice(_spread(cut), _MOST_ROWS):
        if total >= seconds:
            break
        try:
            length = io.info(job.audio).seconds if job.duration is None else job.duration
        except AudioError:
            continue
        jobs.append(job)
        total += length
        size += size_of(job.audio)
    if not jobs:
        raise ConfigError(f"{', '.join(inputs)}: none of the rows that were looked at can be read")
    return Sample(tuple(jobs), total, size, rows)


def _spread(cut: Cut) -> Iterator[Job]:
    """The first row of every place, then the second, and so on; the first places are from all over too."""
    places = list(cut)
    order = sorted(range(len(places)), key=lambda place: place * _GOLDEN % 1)
    left = [iter(places[place].jobs()) for place in order]
    while left:
        for rows in list(left):
            job = next(rows, None)
            if job is None:
                left.remove(rows)
            elif not job.problem:
                yield job


def measured(
    sample: Sample, open_work: Callable[[], tuple[Any, Callable[[Iterable[Job]], Iterator[Outcome]]]]
) -> Speed:
    """The sample through the model, once to warm it up with a single row and once to be timed."""
    began = time.perf_counter()
    _, work = open_work()
    for _ in work(sample.jobs[:1]):
        pass
    opened = time.perf_counter()
    size, failed, audio = 0, 0, 0.0
    for outcome in work(sample.jobs):
        failed += outcome.error is not None
        audio += 0.0 if outcome.error else outcome.audio_seconds
        for content in outcome.files.values():
            size += content.stat().st_size if isinstance(content, Path) else len(content)
    if not audio:
        raise ConfigError("none of the rows that were tried could be done")
    return Speed(audio, time.perf_counter() - opened, opened - began, size, failed)


def estimate(
    sample: Sample,
    speed: Speed,
    prices: Prices,
    processes: int = 1,
    days: float = 7.0,
    hours: float | None = None,
) -> Estimate:
    """For `hours` of audio like the sample, by default the manifest's; so many processes share a machine."""
    audio = sample.hours if hours is None else hours
    work = audio / speed.rtfx
    machine = work / processes
    size_in = sample.bytes / sample.seconds * 3600 * audio / 1e9
    size_out = speed.bytes_out / speed.audio_seconds * 3600 * audio / 1e9
    money = machine * prices.machine_hour + size_in * prices.gigabyte_out
    money += (size_in + size_out) * prices.gigabyte_month * days / 30
    return Estimate(
        audio_hours=audio,
        rtfx=speed.rtfx,
        process_hours=work,
        machine_hours=machine,
        machines=max(1, -int(-machine // (24 * days))),
        gigabytes_in=size_in,
        gigabytes_out=size_out,
        money=money,
        money_per_thousand_hours=money / audio * 1000 if audio else 0.0,
    )


def scratch() -> Path:
    """Where a restorer may put what is only measured."""
    return Path(tempfile.mkdtemp(prefix="speech_peft-estimate-"))
