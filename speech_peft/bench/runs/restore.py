"""Restorers run over pairs, or what others made of them taken from folders; measured, judged, kept.

    row of a manifest: audio is what is degraded, target_audio the clean one (or none)
    with --degrade:    audio is the clean one, and what is degraded is made of it

Systems: `degraded` (the input as it is), `clean` where there is one, adapters that are run, folders of files.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...audio import io
from ...audio.manifest import Row, recordings
from ...errors import AudioError, ConfigError
from ...folders.inputs import Job
from ...folders.progress import Shown, watched
from ...metrics import restoration
from ...metrics.metric import Heard, Metric, Sound
from ...metrics.normalise import normaliser
from ...predictions import run as runs
from ...predictions.restorations import Restoration, dumps, recounted
from ...transcribe.result import Result
from .. import own_files
from ..scores.restore import CLEAN, INPUT, Run
from . import asr as benchmark

Judge = Callable[[Mapping[Path, str]], Mapping[Path, str]]
"""What an unadapted recogniser hears in files, given the language of each ("": it finds out); those that it
cannot hear are left out."""


@dataclass(frozen=True)
class Settings:
    """What all systems of one benchmark share."""

    device: str = "cpu"
    guard: str = "full"
    """full, sound (without words) or off."""
    strength: float = 1.0
    steps: int | None = None
    seed: int = 0
    normalizer: str = "auto"
    language: str = ""


@dataclass(frozen=True)
class Made:
    """A system's files by id, what was said of each, and how long it took."""

    name: str
    files: Mapping[str, Path]
    errors: Mapping[str, str]
    reports: Mapping[str, Mapping[str, Any]]
    times: Mapping[str, float]
    seconds: float | None
    config: Mapping[str, Any]


def pairs(
    rows: Sequence[Row], steps: Sequence[Any] | None, seed: int, folder: Path, track: int | None = None
) -> list[Row]:
    """Rows of whole files, degraded ones as `audio` and clean ones (where known) as `target_audio`."""
    clean = own_files.cut(rows, folder / "clips", track)
    if steps is None:
        return clean
    worse = own_files.degraded(clean, steps, seed, folder / "degraded")
    return [replace(made, target_audio=row.audio) for made, row in zip(worse, clean, strict=True)]


def untouched(rows: Sequence[Row]) -> list[Made]:
    """The input as it is, and the clean recordings where every row has one."""
    found = [Made(INPUT, {row.id: row.audio for row in rows}, {}, {}, {}, None, {})]
    clean = {row.id: row.target_audio for row in rows if row.target_audio is not None}
    return [*found, Made(CLEAN, clean, {}, {}, {}, None, {})] if len(clean) == len(rows) else found


def from_folder(name: str, folder: Path, rows: Sequence[Row]) -> Made:
    """What somebody's program made: files named like the inputs, or like the ids of rows."""
    if not folder.is_dir():
        raise ConfigError(f"--restored {name}={folder}: there is no such folder")
    by_stem: dict[str, list[Path]] = {}
    for file in recordings(folder):
        own = file.relative_to(folder).with_suffix("").as_posix()
        for key in {own, Path(own).name}:
            by_stem.setdefault(key, []).append(file)
    files, errors = {}, {}
    for row in rows:
        found = [by_stem[key] for key in (row.id, row.audio.stem) if key in by_stem]
        if not found:
            errors[row.id] = f"{folder} has no file called {row.id} or {row.audio.stem}"
        elif len(found[0]) > 1:
            errors[row.id] = f"{folder} has several: {', '.join(map(str, found[0][:3]))}"
        else:
            files[row.id] = found[0][0]
    if not files:
        raise ConfigError(f"--restored {name}={folder}: {next(iter(errors.values()))}")
    return Made(name, files, errors, {}, {}, None, {"folder": str(folder)})


def open_restorer(adapter: str, settings: Settings) -> Any:
    """The one place that knows how a restorer is made."""
    from ...restore.restorer import Restorer

    more = {"strength": settings.strength, "steps": settings.steps, "seed": settings.seed}
    return Restorer(adapter, guard=settings.guard, device=settings.device, subtype="FLOAT", **more)


def restored(name: str, adapter: str, rows: Sequence[Row], folder: Path, settings: Settings) -> Made:
    """Every row restored into `folder`; the first once before, so that nothing is loaded in the time."""
    restorer = open_restorer(adapter, settings)
    errors = {row.id: reason for row in rows if (reason := _too_long(row))}
    rows = [row for row in rows if row.id not in errors]
    jobs = [Job(row.audio, "") for row in rows]  # one that is not there is a row of the benchmark
    for _ in restorer.restore(jobs[:1]):
        pass
    files: dict[str, Path] = {}
    reports: dict[str, Mapping[str, Any]] = {}
    times: dict[str, float] = {}
    start = time.perf_counter()
    results = watched(restorer.restore(jobs), len(rows))
    for row, result in zip(rows, results, strict=True):
        times[row.id] = result.seconds
        if result.error is not None or result.samples is None:
            errors[row.id] = result.error or "the restorer gave no samples"
            continue
        files[row.id] = own_files.own_file(row, folder)
        io.save(files[row.id], result.samples, result.sample_rate, "FLOAT")
        reports[row.id] = result.report()
    seconds = time.perf_counter() - start
    about = getattr(restorer, "about", {})
    config = {"adapter": adapter, "settings": asdict(settings), "guarded_seconds": seconds, "about": about}
    # Without the guard's work, which is a choice of its own; `guarded_seconds` has all of it.
    return Made(name, files, errors, reports, times, sum(times.values()), config)


def measure(
    made: Made,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    heard: Mapping[Path, str] | None,
    settings: Settings,
) -> Run:
    """All figures of a system; a recording that cannot be measured is a row with the reason."""
    device = settings.device
    there = [row for row in rows if row.id in made.files]  # of the others it was said why they are not
    each = watched((_measured(made, row, metrics) for row in there), len(there), _as_shown)
    measured = {item.id: item for item in each}
    found = [measured.get(row.id) or _measured(made, row, metrics) for row in rows]
    if heard is not None:
        found = [_judged(item, row, heard, settings) for item, row in zip(found, rows, strict=True)]
    return Run(made.name, tuple(found), made.seconds, made.config, benchmark.hardware(device))


def save(folder: Path, run: Run) -> None:
    """`preds.jsonl` and `run.json`."""
    runs.save(folder, run, dumps)


def judge(weights: str | None, settings: Settings) -> Judge:
    """An unadapted Whisper, by which the words of input and output are compared; opened at the first call.

    A language that the manifest knows is told to it: what it would guess of a bad recording is not the point.
    """
    opened: list[Any] = []

    def hear(files: Mapping[Path, str]) -> dict[Path, str]:
        from ...transcribe.transcriber import Transcriber

        if not opened:
            opened.append(Transcriber(weights, context="full", device=settings.device, engine="torch"))
        (transcriber,) = opened
        knows_more = getattr(transcriber.backbone.generation, "is_multilingual", False)

        def results() -> Iterator[Result]:
            for language in sorted(set(files.values())):
                transcriber.options = replace(transcriber.options, language=(knows_more and language) or None)
                yield from transcriber.transcribe([file for file, own in files.items() if own == language])

        shown = watched(results(), len(files))
        return {Path(result.path): result.text for result in shown if result.error is None}

    return hear


def spoken(made: Sequence[Made], rows: Sequence[Row], settings: Settings) -> dict[Path, str]:
    """Every file of the systems, with the language of its row."""
    language = {row.id: row.lang or settings.language for row in rows}
    return {file: language[id] for one in made for id, file in one.files.items()}


def _measured(made: Made, row: Row, metrics: Sequence[Metric]) -> Restoration:
    file = made.files.get(row.id)
    item = Restoration(
        id=row.id,
        audio_filepath="" if file is None else str(file),
        input_filepath=str(row.audio),
        reference_filepath=str(row.target_audio or ""),
        duration=row.duration or 0.0,
        time=made.times.get(row.id, 0.0),
        lang=row.lang or "",
        speaker=row.speaker or "",
        restored=made.reports.get(row.id),
        error=made.errors.get(row.id),
        columns=dict(row.extra) | ({"label": row.label} if row.label else {}),
    )
    if file is None:
        return replace(item, error=item.error or "nothing was made of it")
    try:
        heard = Heard(_sound(file), _sound(row.audio), _sound(row.target_audio) if row.target_audio else None)
    except AudioError as error:
        return replace(item, error=str(error))
    figures, reasons = restoration.measure(metrics, heard)
    return replace(item, duration=heard.input.seconds, figures=figures, reasons=reasons)


def _as_shown(item: Restoration) -> Shown:
    return Shown(item.audio_filepath, item.duration, item.error)


def _judged(item: Restoration, row: Row, heard: Mapping[Path, str], settings: Settings) -> Restoration:
    """With the judge's words, against the manifest's text or, without one, against its own of the clean."""
    if row.text is not None:
        text, source = row.text, "manifest"
    elif row.target_audio is not None and row.target_audio in heard:
        text, source = heard[row.target_audio], "clean"
    else:
        why = "no text in the manifest, and no clean recording whose words could stand for it"
        return replace(item, reasons={**item.reasons, "wer": why})
    said = heard.get(Path(item.audio_filepath), "") if item.audio_filepath else ""
    judged = replace(item, text=text, text_of=source, pred_text=said, words={})
    return recounted(judged, normaliser(settings.normalizer), settings.language)


def _too_long(row: Row) -> str | None:
    """Why a row is not measured, which needs all of it at once; other faults are told where it is read."""
    try:
        info = io.info(row.audio)
    except AudioError:
        return None
    held = info.seconds * info.sample_rate * info.channels
    return (
        None if held <= io.MOST_SAMPLES else f"lasts {info.seconds / 3600:.1f} hours: too long to be measured"
    )


def _sound(path: Path) -> Sound:
    clip = io.load(path, None)
    return Sound(clip.samples, clip.sample_rate)
