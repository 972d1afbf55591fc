"""Systems run over a manifest, timed, their words kept: the part of a benchmark that needs a model."""

import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from ... import __version__
from ...audio.manifest import Row
from ...decoders.diffusion.by_device import Count
from ...errors import ConfigError, SpeechPeftError, did_you_mean
from ...files import json_text
from ...folders.inputs import Job, task_of
from ...folders.progress import watched
from ...predictions import run as runs
from ...predictions import words as predictions
from ...predictions.run import Run
from ...predictions.words import Prediction
from ...transcribe.result import Result

if TYPE_CHECKING:
    pass

DECODERS = ("autoregressive", "diffusion", "verified")
_WARM_UP = 4  # recordings transcribed before the clock starts: caches, thread pools, lazy kernels


@dataclass(frozen=True)
class System:
    """What is measured: the bare backbone, or one of its adapters."""

    name: str
    adapter: Path | None = None
    context: str | None = None
    """`full` or `fit`; None follows the adapter, and is full for the base."""
    weights: str | None = None
    """Address of the backbone; None is the adapter's own, or the default."""
    decoder: str = "auto"
    """As `transcribe` has it: an adapter that brought a decoder by diffusion can be heard by either."""


@dataclass(frozen=True)
class Settings:
    """What all systems of one benchmark share."""

    device: str = "cpu"
    beam_size: int = 1
    batch_seconds: float | None = None
    engine: Literal["auto", "torch", "ct2"] = "torch"
    steps: Count = "auto"
    """Of a decoder by diffusion."""
    candidates: Count = "auto"
    selection: str = "rover-sum"


@runtime_checkable
class Transcribes(Protocol):
    def transcribe(self, inputs: Iterable[Job]) -> Iterator[Result]: ...


def open_transcriber(system: System, settings: Settings) -> Transcribes:
    """The one place that knows how a transcriber is made."""
    from ...transcribe.transcriber import Transcriber

    options: dict[str, Any] = {}
    if settings.batch_seconds is not None:
        options["batch_seconds"] = settings.batch_seconds
    if system.decoder in ("diffusion", "verified"):
        options |= {"steps": settings.steps}
    if system.decoder == "diffusion":
        options |= {"candidates": settings.candidates, "selection": settings.selection}
    return Transcriber(
        system.weights,
        system.adapter,
        context=system.context,
        device=settings.device,
        beam_size=settings.beam_size,
        engine=settings.engine,
        decoder=system.decoder,
        **options,
    )


def systems(
    base: bool, adapters: Sequence[str], context: str | None = None, weights: str | None = None
) -> list[System]:
    """The base, if wanted or if there is nothing else, then the adapters by NAME=FOLDER or their folders."""
    from ...core.saved.hub import locate

    named = {given: given.partition("=") for given in adapters}
    folders = {name: locate(address or name) for name, _, address in named.values()}
    own = [_backbone(folder) for folder in folders.values()]
    chosen = []
    if base or not adapters:
        chosen.append(System("base", None, context, weights or next(iter(own), None)))
    taken = {system.name for system in chosen}
    for adapter, folder in folders.items():
        chosen.append(System(free_name(adapter, taken), folder, context, weights))
    return chosen


def by_decoder(chosen: Sequence[System], decoders: Sequence[str]) -> list[System]:
    """Each adapter once by every decoder: a column each. The base has one decoder alone.

    With none named, an adapter that brought a decoder by diffusion is heard by that. Raises ConfigError for
    a name that is none.
    """
    for decoder in decoders:
        if decoder not in DECODERS:
            raise ConfigError(f"decoder: there is no {decoder!r}. {did_you_mean(decoder, DECODERS)}")
    found = []
    for system in chosen:
        if system.adapter is None:
            found.append(system)
        elif not decoders:
            own = "diffusion" if _brings_one(system.adapter) else "auto"
            found.append(replace(system, decoder=own))
        for decoder in decoders if system.adapter is not None else ():
            name = system.name if len(decoders) == 1 else f"{system.name}-{decoder}"
            found.append(replace(system, name=name, decoder=decoder))
    return found


def _brings_one(adapter: Path) -> bool:
    try:
        return "diffusion" in json_text.read_object(adapter / "adapter.json").get("head_config", {})
    except ConfigError:
        return False  # opening it says what is wrong


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
    first: dict[Path, Row] = {}
    for row in rows:
        first.setdefault(row.audio, row)
    files = [
        Job(path, str(path), task=task_of(row), lang=row.lang or "", others=row.others)
        for path, row in first.items()
    ]
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
            "decoder": system.decoder,
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
    layer = getattr(getattr(transcriber, "opened", None), "ctc", None)  # which may be there to draft alone
    own_decoder = layer is None or getattr(transcriber, "engine", None) is not None
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
    from ...core.saved.save import read

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
