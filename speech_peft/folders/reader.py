"""Recordings decoded and cut into windows by a thread, ahead of the model that will hear them."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jaxtyping import Float32
from numpy import ndarray

from ..audio import io, views
from ..audio.given import Packed, Wave
from ..audio.windows import chunks
from ..audio.windows.chunks import Window
from ..errors import AudioError
from .inputs import Job

SAMPLE_RATE = chunks.SAMPLE_RATE
Samples = Float32[ndarray, " s"]
Source = str | Path | Wave | Packed | Job
_AHEAD_SECONDS = 300.0  # of audio decoded before the model asks for it


@dataclass(eq=False)
class Recording:
    """An input on its way; what is heard of it is gathered in subclasses."""

    index: int
    source: Source
    windows: int = 0
    """How many were cut; final when the recording has been read."""
    done: int = 0
    """How many of them were heard."""
    duration: float = 0.0
    """Seconds of audio."""
    truncated: bool = False
    notes: tuple[str, ...] = ()
    """What a listener should know of the recording."""
    error: str | None = None
    stage: str = ""
    seconds: float = 0.0
    """Seconds of work; its share of the batches it was in."""

    @property
    def name(self) -> str:
        """The path as it was given; "" for samples that have none."""
        if isinstance(self.source, Wave | Packed):
            return self.source.name
        return str(self.source.audio if isinstance(self.source, Job) else self.source)

    def fail(self, error: str, stage: str) -> None:
        self.error, self.stage = error, stage


R = TypeVar("R", bound=Recording)


@dataclass(frozen=True, eq=False)
class Piece(Generic[R]):
    """A window and the recording it belongs to."""

    file: R
    window: Window


class _Ahead(queue.Queue[Any]):
    """A queue that is full by the audio it holds, not by how many windows that is."""

    def _init(self, maxsize: int) -> None:
        self._events: deque[Any] = deque()
        self._held = 0

    def _qsize(self) -> int:
        return self._held

    def _put(self, item: Any) -> None:
        self._events.append(item)
        self._held += self._weight(item)

    def _get(self) -> Any:
        item = self._events.popleft()
        self._held -= self._weight(item)
        return item

    def _weight(self, item: Any) -> int:
        return 1 + (item.window.samples.size + item.window.views.size if isinstance(item, Piece) else 0)


class Reader(Generic[R]):
    """A thread that decodes files and cuts windows; iterating gives each `Piece`, then its `Recording`."""

    def __init__(
        self,
        sources: Iterable[Source],
        recording: Callable[[int, Source], R],
        cut: Callable[[Iterable[chunks.Block]], Iterator[Window]],
        channels: views.Channels = "mix",
        track: int | None = None,
    ):
        """`recording` makes what gathers an input's results; `cut` makes windows of its blocks."""
        self._queue = _Ahead(int(_AHEAD_SECONDS * SAMPLE_RATE))
        self._sources, self._recording, self._cut = sources, recording, cut
        self._channels: views.Channels = channels
        self._track = track
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Piece[R] | R]:
        while (event := self._queue.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.02)
            except queue.Empty:
                continue

    def _put(self, event: Any) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(event, timeout=0.1)
            except queue.Full:
                continue

    def _read_all(self) -> None:
        try:
            for index, source in enumerate(self._sources):
                if self._stop.is_set():
                    return
                file = self._recording(index, source)
                try:
                    self._read(file)
                except AudioError as error:
                    file.fail(error.reason, "decode")
                except Exception as error:  # whatever a decoder raises is this file's, not the run's
                    file.fail(f"{type(error).__name__}: {error}", "decode")
                self._put(file)
        except BaseException as error:
            self._put(error)
        self._put(None)

    def _read(self, file: R) -> None:
        counted = _Counted(_blocks(file.source, self._channels, self._track))
        for window in self._cut(counted):
            if self._stop.is_set():
                return
            file.windows += 1
            self._put(Piece(file, window))
        file.duration = counted.samples / SAMPLE_RATE
        file.truncated = bool(getattr(counted.blocks, "truncated", False))
        file.notes = tuple(getattr(counted.blocks, "notes", ()))


class _Counted:
    """Blocks, and how many samples went by."""

    def __init__(self, blocks: Iterable[chunks.Block]):
        self.blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[chunks.Block]:
        for block in self.blocks:
            self.samples += len(block)
            yield block


def _blocks(source: Source, channels: views.Channels, track: int | None) -> Iterable[chunks.Block]:
    if isinstance(source, Packed):
        source = source.wave()
    if isinstance(source, Wave):
        return [views.of(source, SAMPLE_RATE) if channels == "views" else source.heard(SAMPLE_RATE, channels)]
    job = source if isinstance(source, Job) else Job(Path(source), "")
    if channels == "views":
        files, of = (job.audio, *job.others), (job.start, job.duration, track)
        return views.Blocks(files, SAMPLE_RATE, chunks.BLOCK_SECONDS, *of)
    return io.stream(job.audio, SAMPLE_RATE, chunks.BLOCK_SECONDS, job.start, job.duration, channels, track)
