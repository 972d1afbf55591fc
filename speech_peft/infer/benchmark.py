"""Systems run over a manifest, timed, their words kept: the part of a benchmark that needs a model."""

import hashlib
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import soundfile

from .. import __version__
from ..audio import io
from ..audio.manifest import Row
from ..errors import AudioError, ConfigError, SpeechPeftError
from ..files import json_text
from ..metrics import predictions
from ..metrics import run as runs
from ..metrics.predictions import Prediction
from ..metrics.run import Run
from .inputs import Job
from .progress import watched
from .result import Result

if TYPE_CHECKING:
    from ..audio.degrade import Degrader

SAMPLE_RATE = 16_000
_AT_ONCE = 600.0  # seconds that are degraded as one
_WARM_UP = 4  # recordings transcribed before the clock starts: caches, thread pools, lazy kernels
_WAV_BYTES = 4e9  # more does not fit into its header


@dataclass(frozen=True)
class System:
    """What is measured: the bare backbone, or one of its adapters."""

    name: str
    adapter: Path | None = None
    context: str | None = None
    """`full` or `fit`; None follows the adapter, and is full for the base."""
    weights: str | None = None
    """Address of the backbone; None is the adapter's own, or the default."""


@dataclass(frozen=True)
class Settings:
    """What all systems of one benchmark share."""

    device: str = "cpu"
    beam_size: int = 1
    batch_seconds: float | None = None


@runtime_checkable
class Transcribes(Protocol):
    def transcribe(self, inputs: Iterable[Job]) -> Iterator[Result]: ...


def open_transcriber(system: System, settings: Settings) -> Transcribes:
    """The one place that knows how a transcriber is made."""
    from .transcriber import Transcriber

    options: dict[str, Any] = {}
    if settings.batch_seconds is not None:
        options["batch_seconds"] = settings.batch_seconds
    return Transcriber(
        system.weights,
        system.adapter,
        context=system.context,
        device=settings.device,
        beam_size=settings.beam_size,
        **options,
    )


def systems(
    base: bool, adapters: Sequence[str], context: str | None = None, weights: str | None = None
) -> list[System]:
    """The base, if wanted or if there is nothing else, then the adapters by the names of their folders."""
    from ..core.hub import locate

    folders = {adapter: locate(adapter) for adapter in adapters}
    own = [_backbone(folder) for folder in folders.values()]
    chosen = []
    if base or not adapters:
        chosen.append(System("base", None, context, weights or next(iter(own), None)))
    taken = {system.name for system in chosen}
    for adapter, folder in folders.items():
        chosen.append(System(free_name(adapter, taken), folder, context, weights))
    return chosen


def free_name(path: str, taken: set[str]) -> str:
    """A system's name: the last part of its path, with a number where that is `taken`, which it joins."""
    name = folder_name = re.sub(r"[^\w.-]+", "_", Path(os.path.abspath(path)).name) or "adapter"
    number = 2
    while name in taken:
        name, number = f"{folder_name}-{number}", number + 1
    taken.add(name)
    return name


def measure(system: System, rows: Sequence[Row], settings: Settings) -> Run[Prediction]:
    """Transcribe every row with a system. Loading the model and a first few files are not in the time."""
    transcriber = open_transcriber(system, settings)
    files = [Job(path, str(path)) for path in dict.fromkeys(row.audio for row in rows)]
    for _ in transcriber.transcribe(files[:_WARM_UP]):
        pass
    start = time.perf_counter()
    heard = {Path(result.path): result for result in watched(transcriber.transcribe(files), len(files))}
    seconds = time.perf_counter() - start
    return Run(
        system.name,
        tuple(_prediction(row, heard.get(row.audio)) for row in rows),
        seconds,
        {
            "weights": system.weights,
            "adapter": None if system.adapter is None else str(system.adapter),
            "context": system.context,
            "beam_size": settings.beam_size,
            "batch_seconds": settings.batch_seconds,
            "warm_up_files": min(_WARM_UP, len(files)),
            "language": only_language(transcriber),
            # What the transcriber says of itself knows better than what was asked for.
            **next((result.about for result in heard.values() if result.about), {}),
        },
        hardware(settings.device),
    )


def only_language(transcriber: Any) -> str:
    """`en` of a Whisper that knows nothing but English; empty where what it writes may be of any language."""
    generation = getattr(getattr(transcriber, "backbone", None), "generation", None)
    own_decoder = getattr(getattr(transcriber, "opened", None), "ctc", None) is None
    return "en" if own_decoder and generation is not None and not generation.is_multilingual else ""


def occasion(
    data: Path, rows: Sequence[Row], degrade: str | None, seed: int, track: int | None = None
) -> dict[str, Any]:
    """What a benchmark measures and when, for the head of its report: `measured` of its runs."""
    return {
        "manifest": str(data),
        "rows": len(rows),
        "degradation": degrade,
        "seed": seed,
        "track": track,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
    }


def identity(adapter: Path) -> dict[str, Any]:
    """The weights that an adapter belongs to and its digest, as far as its folder can say; opening it tells
    what is wrong with one that cannot."""
    from ..core.save import read

    try:
        saved = read(adapter)
        return {"model": saved.backbone.id, "adapter_sha256": saved.digest}
    except (SpeechPeftError, OSError):
        return {}


def save(folder: Path, run: Run[Prediction]) -> None:
    """`preds.jsonl` and `run.json`."""
    runs.save(folder, run, predictions.dumps)


def with_text(rows: Sequence[Row]) -> list[Row]:
    """The rows, if each has a reference: a benchmark over a part of them would not say of which."""
    rows = list(rows)  # of a listing, each is read once
    silent = [row.id for row in rows if row.text is None]
    if silent:
        raise ConfigError(
            f"{len(silent)} of {len(rows)} rows have no text to score against (first: {silent[0]!r}); "
            "give them one, or an empty text where nothing is said"
        )
    return rows


def cut(rows: Sequence[Row], folder: Path, track: int | None = None) -> list[Row]:
    """Rows of whole files: a row that is a slice of a recording, or one `track` of it, gets a file of its own
    in `folder`."""
    return [_cut(row, folder, track) for row in rows]


def degraded(rows: Sequence[Row], steps: Sequence[Any], seed: int, folder: Path) -> list[Row]:
    """The rows with their audio degraded, the same way for the same seed and id, as files in `folder`."""
    from ..audio.degrade import Degrader

    degrader = Degrader(steps, seed)
    return [_degraded(row, degrader, Others(rows, at), folder) for at, row in enumerate(rows)]


def hardware(device: str) -> dict[str, Any]:
    """The machine behind a throughput."""
    import torch

    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_memory_mb": _peak_memory_mb(),
    }


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


def _backbone(folder: Path) -> str:
    """The weights an adapter was trained on, so that `--base` is its own base."""
    path = folder / "adapter.json"
    try:
        return json_text.read_object(path)["backbone"]["id"]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} names no backbone ({error!r})") from error


def _prediction(row: Row, heard: Result | None) -> Prediction:
    return Prediction(
        id=row.id,
        audio_filepath=str(row.audio),
        duration=(heard.duration if heard else 0.0) or row.duration or 0.0,
        time=heard.seconds if heard else 0.0,
        text=row.text or "",
        pred_text=heard.text if heard else "",
        lang=row.lang or "",
        speaker=row.speaker or "",
        error=heard.error if heard else "the transcriber gave no result",
        columns=dict(row.extra) | ({"label": row.label} if row.label else {}),
    )


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


def own_file(row: Row, folder: Path) -> Path:
    """A name that a person recognises and no other row has."""
    readable = re.sub(r"[^\w.-]+", "_", row.id)[-60:]
    return folder / f"{readable}-{hashlib.sha256(row.id.encode()).hexdigest()[:8]}.wav"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def _peak_memory_mb() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 << 20 if platform.system() == "Darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
