"""How far a run is, in seconds of audio: a bar on a terminal, lines in a log, JSON for other programs."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TextIO, TypeVar, runtime_checkable

from ..files import json_text
from ..terminal.door import printable, say

_EVERY_SECONDS = 5.0  # between two plain lines


@runtime_checkable
class Progress(Protocol):
    """What the runner tells, and when."""

    def start(self, files: int, bytes: int, skipped: int) -> None: ...
    def opened(self) -> None: ...
    def planned(self, files: int, bytes: int) -> None: ...
    def file(self, path: str, status: str, seconds: float, bytes: int, error: str | None) -> None: ...
    def note(self, text: str) -> None: ...
    def problem(self, text: str) -> None: ...
    def end(self, summary: Mapping[str, Any]) -> None: ...


class _Count:
    """Audio done and audio to come; bytes stand for lengths that are unknown until a file is decoded."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.files = self.bytes = self.done = self.done_bytes = self.failed = 0
        self.audio = 0.0
        self.started = time.monotonic()

    def start(self, files: int, bytes: int, skipped: int) -> None:
        self.files, self.bytes, self.started = files, bytes, time.monotonic()
        already = f", {skipped} already done" if skipped else ""
        self.note(f"{files} recordings to do{already}")

    def opened(self) -> None:
        """Speed counts from here on, as it does in `bench`: opening a model is no part of it."""
        self.started = time.monotonic()

    def planned(self, files: int, bytes: int) -> None:
        """How many there are to do and their bytes, better known than at the start."""
        self.files, self.bytes = files, bytes

    def file(self, path: str, status: str, seconds: float, bytes: int, error: str | None) -> None:
        self.done += 1
        self.done_bytes += bytes
        self.audio += seconds
        self.failed += status == "failed"

    def note(self, text: str) -> None:
        say(printable(text), self.stream)

    def problem(self, text: str) -> None:
        """What a user must know, however quiet a run was to be."""
        say(printable(text), self.stream)

    def end(self, summary: Mapping[str, Any]) -> None:
        self.note(sentence(summary))

    @property
    def elapsed(self) -> float:
        return max(1e-6, time.monotonic() - self.started)

    @property
    def total_audio(self) -> float:
        return self.audio * self.bytes / self.done_bytes if self.done_bytes else 0.0

    @property
    def eta(self) -> float | None:
        if not self.done_bytes:
            return None
        return self.elapsed * (self.bytes / self.done_bytes - 1)

    def line(self) -> str:
        left = "" if self.eta is None else f"  ETA {clock(self.eta)}"
        return (
            f"{self.done}/{self.files} files  {clock(self.audio)} of about {clock(self.total_audio)} audio"
            f"  {pace(self.audio / self.elapsed)}{left}  {self.failed} failed"
        )


class Lines(_Count):
    """A line every few seconds, and one for each failure."""

    _last = 0.0

    def file(self, path: str, status: str, seconds: float, bytes: int, error: str | None) -> None:
        super().file(path, status, seconds, bytes, error)
        if status == "failed":
            self.note(f"failed: {path}: {error}")
        elif status == "truncated":
            self.note(f"truncated: {path}: the file ends before the length it declares")
        if time.monotonic() - self._last > _EVERY_SECONDS:
            self._last = time.monotonic()
            self.note(self.line())


class Quiet(_Count):
    """Failures only."""

    def start(self, files: int, bytes: int, skipped: int) -> None:
        pass

    def file(self, path: str, status: str, seconds: float, bytes: int, error: str | None) -> None:
        if status == "failed":
            self.problem(f"failed: {path}: {error}")

    def note(self, text: str) -> None:
        pass

    def end(self, summary: Mapping[str, Any]) -> None:
        pass


class JsonLines(_Count):
    """One object an event, for programs that wrap this one."""

    def _event(self, event: str, **fields: Any) -> None:
        say(json_text.write({"event": event, **fields}), self.stream)

    def start(self, files: int, bytes: int, skipped: int) -> None:
        self.files, self.bytes, self.started = files, bytes, time.monotonic()
        self._event("start", files=files, bytes=bytes, skipped=skipped)

    def file(self, path: str, status: str, seconds: float, bytes: int, error: str | None) -> None:
        super().file(path, status, seconds, bytes, error)
        eta = None if self.eta is None else round(self.eta, 2)
        rtfx = round(self.audio / self.elapsed, 2)
        self._event(
            "file", path=path, status=status, audio_seconds=round(seconds, 3), error=error, done=self.done,
            files=self.files, failed=self.failed, audio_done=round(self.audio, 3), rtfx=rtfx, eta_seconds=eta,
        )  # fmt: skip

    def note(self, text: str) -> None:
        self._event("note", text=text)

    def problem(self, text: str) -> None:
        self._event("error", text=text)

    def end(self, summary: Mapping[str, Any]) -> None:
        self._event("end", **summary)


class Bar(_Count):
    """A bar that fills with audio; failures stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        super().__init__()
        self._bar = RichProgress(
            BarColumn(bar_width=10),  # with what follows it fits into 80 columns
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=1)

    def start(self, files: int, bytes: int, skipped: int) -> None:
        super().start(files, bytes, skipped)
        self._bar.update(self._task, total=max(1, bytes), description="opening the model")
        self._bar.start()

    def file(self, path: str, status: str, seconds: float, bytes: int, error: str | None) -> None:
        super().file(path, status, seconds, bytes, error)
        if status in ("failed", "truncated"):
            self.note(f"{status}: {path}: {error or 'the file ends before the length it declares'}")
        self._bar.update(self._task, completed=self.done_bytes, description=self.line())

    def planned(self, files: int, bytes: int) -> None:
        super().planned(files, bytes)
        self._bar.update(self._task, total=max(1, bytes))

    def note(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a terminal that was closed
            self._bar.console.print(printable(text), markup=False, highlight=False)

    def problem(self, text: str) -> None:
        self.note(text)

    def end(self, summary: Mapping[str, Any]) -> None:
        self._bar.stop()
        super().end(summary)


def reporter(mode: str = "auto", quiet: bool = False) -> Progress:
    """The right one for where standard error goes."""
    if mode == "json":
        return JsonLines()
    if quiet:
        return Quiet()
    return Bar() if mode == "auto" and sys.stderr.isatty() else Lines()


T = TypeVar("T")


class Shown(NamedTuple):
    """What is told of one result."""

    path: str
    duration: float
    """Seconds of audio."""
    error: str | None


def watched(results: Iterable[T], files: int, of: Callable[[T], Any] = lambda result: result) -> Iterator[T]:
    """The same results, shown as they come; `of` gives what has path, duration and error of one."""
    report, audio, counts, began = reporter(), 0.0, Counter(), time.monotonic()
    report.start(files, files, 0)
    report.opened()
    try:
        for result in results:
            one = of(result)
            status = "failed" if one.error else "ok"
            audio, counts[status] = audio + one.duration, counts[status] + 1
            report.file(str(one.path), status, one.duration, 1, one.error)
            yield result
    finally:
        seconds = max(1e-6, time.monotonic() - began)
        left = files - counts.total()
        summary = dict.fromkeys(("ok", "truncated", "skipped", "failed"), 0) | dict(counts)
        report.end(
            {**summary, "not_done": left, "audio_seconds": audio, "seconds": seconds, "rtfx": audio / seconds}
        )


def spent(audio_seconds: float, started: float, opened: float) -> dict[str, float | None]:
    """The audio and the time of a run until now, as its summary has them.

    `started` and `opened` are moments of `time.monotonic`; opening the model counts for no speed.
    """
    now = time.monotonic()
    working = now - opened
    return {
        "audio_seconds": round(audio_seconds, 3),
        "seconds": round(now - started, 3),
        "opening_seconds": round(opened - started, 3),
        "rtfx": round(audio_seconds / working, 2) if working and audio_seconds else None,
    }


def sentence(summary: Mapping[str, Any]) -> str:
    parts = [f"{summary['ok']} done"]
    parts += [f"{summary[n]} {n}" for n in ("truncated", "skipped", "failed") if summary[n]]
    parts += [f"{summary['elsewhere']} left to other processes"] if summary.get("elsewhere") else []
    parts += [f"{summary['not_done']} not done"] if summary["not_done"] else []
    speed = ""
    if summary["audio_seconds"] and summary["rtfx"]:
        audio = clock(summary["audio_seconds"])
        seconds = clock(summary["seconds"] - summary.get("opening_seconds", 0.0))
        speed = f"; {audio} audio in {seconds}, {pace(summary['rtfx'])}"
    return ", ".join(parts) + speed


def pace(rtfx: float) -> str:
    """Seconds of audio per second of work, as people say it; the same everywhere, loading never counts."""
    return f"{rtfx:.0f}x real time" if rtfx >= 9.95 else f"{rtfx:.2g}x real time"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
