"""The files of a benchmark: predictions read back as runs; scores and the page written, the table printed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..audio import io
from ..errors import ConfigError
from ..files import json_text
from ..files.atomic import write_text
from ..metrics.metric import Metric
from ..metrics.normalise import normaliser
from ..metrics.slices import Options
from ..predictions import classes as class_predictions
from ..predictions import restorations, run
from ..predictions import words as predictions
from ..predictions.classes import ClassPrediction
from ..predictions.words import Prediction
from ..terminal.door import line, say
from .report import asr as report
from .report import classify as class_report
from .report import restore as restoration_report
from .report.asr import Limits
from .scores import asr, classify
from .scores import restore as restoration_scores
from .table import table

_HOLDS = {"asr": "words", "classify": "classes", "restore": "restorations"}


def task_of(paths: Sequence[Path]) -> str:
    """`asr`, `classify` or `restore`: what all these predictions are of."""
    found = [_task(preds_of(path)) for path in paths]
    other = next((task for task in found if task != found[0]), found[0])
    if other != found[0]:
        raise ConfigError(
            f"{paths[0]} holds {_HOLDS[found[0]]}, {paths[found.index(other)]} {_HOLDS[other]}; "
            "score them apart"
        )
    return found[0]


def _task(file: Path) -> str:
    if class_predictions.is_classification(file):
        return "classify"
    return "restore" if restorations.is_restoration(file) else "asr"


def asr_runs(paths: Sequence[Path], normalizer: str = "auto", language: str = "") -> list[asr.Run]:
    """Scored recognition runs, named by their folders, with the `run.json` beside them.

    `language` is that of rows that name none; without it English, where a run is of a model that knows no
    other. All runs are scored by one rule.
    """
    rule, files = normaliser(normalizer), list(_files(paths))
    known = (about.get("config", {}).get("language") for _, _, about in files)
    language = language or next((code for code in known if code), "")
    return [
        asr.Run(name, asr.score(predictions.read(file), rule, language), **about)
        for name, file, about in files
    ]


def class_runs(paths: Sequence[Path]) -> list[classify.Run]:
    """Classification runs, named and described likewise."""
    return [
        classify.Run(name, tuple(class_predictions.read(file)), **about)
        for name, file, about in _files(paths)
    ]


def restoration_runs(
    paths: Sequence[Path], normalizer: str = "auto", language: str = ""
) -> list[restoration_scores.Run]:
    """Restoration runs likewise; the judge's words are counted anew by the normaliser."""
    rule = normaliser(normalizer)
    return [
        restoration_scores.Run(
            name,
            tuple(restorations.recounted(item, rule, language) for item in restorations.read(file)),
            **about,
        )
        for name, file, about in _files(paths)
    ]


def publish_asr(
    runs: Sequence[asr.Run],
    out: Path,
    normalizer: str = "auto",
    options: Options | None = None,
    limits: Limits | None = None,
    apart: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `scores.json` and `report.html`, print the table, and return the scores.

    `apart` is what was measured on other recordings, for scores and page: see `harm.py`.
    """

    def load(prediction: Prediction) -> tuple[Any, int]:
        clip = io.load(prediction.audio_filepath, 16_000)
        return clip.samples, clip.sample_rate

    found = asr.scores(runs, normaliser(normalizer), options) | dict(apart or {})
    _write(found, report.render(found, runs, out, load, limits=limits), out)
    return found


def publish_classes(
    runs: Sequence[classify.Run], out: Path, options: Options | None = None, limits: Limits | None = None
) -> dict[str, Any]:
    """The same for classification."""

    def load(prediction: ClassPrediction) -> tuple[Any, int]:
        clip = io.load(prediction.audio_filepath, 16_000, prediction.start, prediction.duration or None)
        return clip.samples, clip.sample_rate

    found = classify.scores(runs, options)
    _write(found, class_report.render(found, runs, out, load, limits=limits), out)
    return found


def publish_restorations(
    runs: Sequence[restoration_scores.Run],
    out: Path,
    metrics: Sequence[Metric] | None = None,
    options: Options | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """The same for restoration; without `metrics`, by those that the predictions have something of."""
    metrics = restoration_scores.metrics_of(runs) if metrics is None else metrics
    found = restoration_scores.scores(runs, metrics, options)
    page = restoration_report.render(found, runs, out, limits=limits)
    _write(found, page, out, restoration_report.table)
    return found


def preds_of(path: Path) -> Path:
    """The predictions' file of a folder, or the file itself."""
    return path / "preds.jsonl" if path.is_dir() else path


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Name, file and `run.json` of each; a name that comes again gets a number."""
    taken: set[str] = set()
    for number, path in enumerate(paths, 1):
        file = preds_of(path)
        standard = file.name == "preds.jsonl"
        name = file.absolute().parent.name if standard else file.stem
        if name in taken:
            name = f"{name}-{number}"
        taken.add(name)
        yield name, file, run.about(file) if standard else {}


def _write(
    found: dict[str, Any], html: str, out: Path, lines: Callable[[dict[str, Any]], str] = table
) -> None:
    write_text(out / "scores.json", json_text.write(found, indent=2, ensure_ascii=False, default=str) + "\n")
    write_text(out / "report.html", html)
    say(lines(found))
    line(out / "report.html")
