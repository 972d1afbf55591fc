"""Rows of a test set as files of their own: slices and tracks cut out of recordings, and clips made worse."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from ..audio import io
from ..audio.manifest import Row
from ..errors import AudioError, ConfigError

if TYPE_CHECKING:
    from ..audio.degrade import Degrader

SAMPLE_RATE = 16_000
_AT_ONCE = 600.0  # seconds that are degraded as one
_WAV_BYTES = 4e9  # more does not fit into its header


def cut(rows: Sequence[Row], folder: Path, track: int | None = None) -> list[Row]:
    """Rows of whole files: a row that is a slice of a recording, or one `track` of it, gets a file of its own
    in `folder`."""
    return [_cut(row, folder, track) for row in rows]


def degraded(rows: Sequence[Row], steps: Sequence[Any], seed: int, folder: Path) -> list[Row]:
    """The rows with their audio degraded, the same way for the same seed and id, as files in `folder`."""
    from ..audio.degrade import Degrader

    degrader = Degrader(steps, seed)
    return [_degraded(row, degrader, Others(rows, at), folder) for at, row in enumerate(rows)]


def own_file(row: Row, folder: Path) -> Path:
    """A name that a person recognises and no other row has."""
    readable = re.sub(r"[^\w.-]+", "_", row.id)[-60:]
    return folder / f"{readable}-{hashlib.sha256(row.id.encode()).hexdigest()[:8]}.wav"


class Others:
    """The other utterances of the manifest, as voices of babble: `others(generator)` draws one."""

    def __init__(self, rows: Sequence[Row], own: int):
        self.rows, self.own = rows, own

    def __call__(self, generator: np.random.Generator) -> io.Samples:
        if len(self.rows) < 2:
            raise ConfigError("--degrade: babble is made of other utterances, and the manifest has only one")
        # One draw among the others, shifted past our own place; an unreadable one gives way to the next.
        drawn = int(generator.integers(len(self.rows) - 1))
        for step in range(len(self.rows) - 1):
            row = self.rows[(self.own + 1 + (drawn + step) % (len(self.rows) - 1)) % len(self.rows)]
            with suppress(AudioError):
                return io.load(row.audio, SAMPLE_RATE, row.start, row.duration).samples
        raise ConfigError("--degrade: babble is made of other utterances, and none can be read")


def _cut(row: Row, folder: Path, track: int | None) -> Row:
    target = own_file(row, folder)
    try:
        if track is None and _whole(row):
            return row
        _copy(row, target, track)
    except AudioError:
        return row if track is None else _nothing(row, target)
    return replace(row, audio=target, start=0.0)


def _whole(row: Row) -> bool:
    """Whether the row is all of a recording; a duration may only say how long that is."""
    if row.start:
        return False
    return row.duration is None or row.duration >= io.info(row.audio).seconds - 0.02


def _nothing(row: Row, target: Path) -> Row:
    """The row without a recording: another track must not be heard in place of the one that was asked for."""
    target.unlink(missing_ok=True)
    return replace(row, audio=target, start=0.0)


def _copy(row: Row, target: Path, track: int | None) -> None:
    """The slice as a file, block by block: a day of sound is more than memory holds."""
    seconds = row.duration or io.info(row.audio, track).seconds
    with closing(io.stream(row.audio, None, 30.0, row.start, row.duration, track=track)) as stream:
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = "WAV" if 2 * seconds * stream.sample_rate < _WAV_BYTES else "RF64"
        try:
            with soundfile.SoundFile(target, "w", stream.sample_rate, 1, "PCM_16", format=kind) as file:
                for block in stream:
                    file.write(block)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _degraded(row: Row, degrader: "Degrader", others: Others, folder: Path) -> Row:
    seconds = 0.0
    target = own_file(row, folder)

    def worse() -> Iterator[np.ndarray]:
        nonlocal seconds
        with closing(io.stream(row.audio, SAMPLE_RATE, _AT_ONCE, row.start, row.duration)) as blocks:
            for number, block in enumerate(blocks):
                seconds += len(block) / SAMPLE_RATE
                # Each part of a long recording has an id of its own, so that it is degraded in its own way.
                id = f"{row.id}#{number}" if number else row.id
                yield degrader(block, SAMPLE_RATE, id=id, pool=others).samples

    try:
        io.save_blocks(target, worse(), SAMPLE_RATE, "FLOAT")  # louder than full scale is not cut off
    except AudioError:
        return row  # the transcriber meets the same file and says so in its own row
    return replace(row, audio=target, start=0.0, duration=seconds)
