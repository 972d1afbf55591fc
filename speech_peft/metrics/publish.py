"""The files of a benchmark: predictions read back as runs; scores and the page written, the table printed."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..audio import io
from ..audio.atomic import write_text
from ..errors import ConfigError
from . import asr, class_predictions, class_report, classify, predictions, report
from .class_predictions import ClassPrediction
from .normalise import normaliser
from .predictions import Prediction
from .report import Limits
from .slices import Options
from .table import table


def task_of(paths: Sequence[Path]) -> str:
    """`asr` or `classify`: what all these predictions are of."""
    found = [class_predictions.is_classification(preds_of(path)) for path in paths]
    if any(found) and not all(found):
        raise ConfigError(
            f"{paths[found.index(True)]} holds classes, {paths[found.index(False)]} words; score them apart"
        )
    return "classify" if any(found) else "asr"


def asr_runs(paths: Sequence[Path], normalizer: str = "auto", language: str = "") -> list[asr.Run]:
    """Scored recognition runs, named by their folders, with the `run.json` beside them."""
    rule = normaliser(normalizer)
    return [
        asr.Run(name, asr.score(predictions.read(file), rule, language), **about)
        for name, file, about in _files(paths)
    ]


def class_runs(paths: Sequence[Path]) -> list[classify.Run]:
    """Classification runs, named and described likewise."""
    return [
        classify.Run(name, tuple(class_predictions.read(file)), **about)
        for name, file, about in _files(paths)
    ]


def publish_asr(
    runs: Sequence[asr.Run],
    out: Path,
    normalizer: str = "auto",
    options: Options | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Write `scores.json` and `report.html`, print the table, and return the scores."""

    def load(prediction: Prediction) -> tuple[Any, int]:
        clip = io.load(prediction.audio_filepath, 16_000)
        return clip.samples, clip.sample_rate

    found = asr.scores(runs, normaliser(normalizer), options)
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
        beside = file.with_name("run.json")
        about = json.loads(beside.read_text(encoding="utf-8")) if standard and beside.is_file() else {}
        yield name, file, about


def _write(found: dict[str, Any], html: str, out: Path) -> None:
    write_text(out / "scores.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    write_text(out / "report.html", html)
    print(table(found))
    print(out / "report.html")
