"""One cell of a sweep: trained in this process, saved, opened again as a user would, tested and measured."""

import re
import shutil
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..audio.degrade import parse
from ..audio.rows.row import Row
from ..bench import own_files
from ..bench.runs import asr as benchmark
from ..bench.scores import asr
from ..bench.scores.class_arrays import arrays
from ..classify.classifier import Classifier, evaluate
from ..errors import ConfigError, Interrupted, SpeechPeftError
from ..files.atomic import write_text
from ..metrics import classification
from ..metrics.normalise import normaliser
from ..metrics.wer import Counts
from ..predictions import classes as class_predictions
from ..predictions import words as predictions
from ..recipe.recipe import Recipe
from ..train.fit import train
from ..train.meter import Meter
from ..train.state import forget
from . import memory
from .grid import Cell

MARK = "cell"
"""The file that says that a folder is a cell's, and of which grid."""
# What of an adapter folder is needed to run it.
_NEEDED = ("adapter.json", "adapter.safetensors", "head.safetensors", "base.safetensors")


def run(cell: Cell) -> dict[str, Any]:
    """The cell's row for the results; whatever goes wrong in it is its `error`.

    A run that was killed goes on from its last state.
    """
    out = Path(cell.recipe.out)
    started = time.perf_counter()
    try:
        _cleared(out, cell.key)
    except ConfigError as error:
        return {**cell.place(), "error": str(error), "cell_seconds": 0.0, "folder": str(out)}
    with (out / "train.log").open("w", encoding="utf-8") as log, redirect_stderr(log):
        try:
            found = {**_measured(cell), "error": None}
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:
            traceback.print_exc()
            known = isinstance(error, SpeechPeftError)
            found = {"error": str(error) if known else f"{type(error).__name__}: {error}"}
    forget(out)  # with a fine-tuned base it is three times as large as the weights
    seconds = round(time.perf_counter() - started, 3)
    return {**cell.place(), **found, "cell_seconds": seconds, "folder": str(out)}


def _cleared(out: Path, key: str) -> None:
    """The cell's folder, without what an older grid left in it; raises ConfigError for what no sweep made."""
    mark = out / MARK
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is no folder; move it away, or give another folder with -o")
    if out.is_dir() and any(out.iterdir()):
        before = mark.read_text(errors="replace") if mark.is_file() else ""
        if not re.fullmatch(r"[0-9a-f]{8,64}", before):
            raise ConfigError(
                f"{out} holds files that no sweep made, and this cell would replace them; move them away, or "
                "give another folder with -o"
            )
        if before != key:
            shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, key)


def _measured(cell: Cell) -> dict[str, Any]:
    meter, before = Meter(), memory.start()
    trained = train(cell.recipe, watchers=[meter])
    peak = memory.peak() if before is not None else None
    folder = Path(cell.recipe.out, cell.recipe.train[0])
    valid = trained.scores
    files = [folder / name for name in _NEEDED]
    return {
        **_tested(cell.recipe, folder, _rows(cell, folder.parent)),
        "valid": None if valid is None else {"name": valid.name, "value": valid.value, "loss": valid.loss},
        **{f"{part}_parameters": count for part, count in meter.parameters.items()},
        "adapter_bytes": sum(file.stat().st_size for file in files if file.exists()),
        "steps": trained.steps,
        "epochs": round(meter.heard / max(1, meter.clips), 2),
        "train_clips": meter.clips,
        "train_seconds": round(trained.seconds, 3),
        "epoch_seconds": _rounded(meter.epoch_seconds, 4),
        "epoch_cpu_seconds": _rounded(meter.epoch_cpu_seconds, 4),
        "run_memory_mb": None if before is None or peak is None else round(peak - before, 1),
        "peak_memory_mb": _rounded(peak, 1),
        "memory_before_mb": _rounded(before, 1),
        "peak_gpu_mb": _rounded(meter.gpu_mb, 1),
    }


def _rows(cell: Cell, folder: Path) -> Sequence[Row]:
    """The test rows as they are tested."""
    if not cell.degrade:
        return cell.rows
    return own_files.degraded(cell.rows, parse(cell.degrade), 0, folder / "degraded")


def _tested(recipe: Recipe, folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of the saved adapter on the test rows; its answers are kept in `preds.jsonl`."""
    on_gpu = recipe.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    weights = recipe.backbone.weights
    if recipe.task.name == "classify":
        answers = evaluate(Classifier([folder], weights, device=device), rows)
        write_text(folder.parent / "preds.jsonl", class_predictions.dumps(answers))
        found = arrays(answers)
        accuracy = classification.accuracy(found.target, found.probabilities)
        return {
            "accuracy": accuracy,
            "error_rate": 1 - accuracy,
            "macro_f1": classification.macro_f1(found.target, found.probabilities),
            "map": _finite(classification.mean_average_precision(found.target, found.probabilities)),
            "ece": _finite(classification.ece(found.target, found.probabilities)),
            "test_clips": len(answers),
            "failed_clips": sum(answer.error is not None for answer in answers),
        }
    whole = own_files.cut(benchmark.with_text(rows), folder.parent / "clips")
    system = benchmark.System(folder.name, folder, weights=weights)
    measured = benchmark.measure(system, whole, benchmark.Settings(device))
    heard = measured.predictions
    write_text(folder.parent / "preds.jsonl", predictions.dumps(heard))
    language = getattr(recipe.task, "language", None) or str(measured.config["language"])
    scored = asr.score(heard, normaliser("auto"), language)
    return {
        "metric": asr.headline([asr.Run(folder.name, scored)]),
        "wer": sum((one.words for one in scored), Counts()).rate,
        "cer": sum((one.characters for one in scored), Counts()).rate,
        "test_clips": len(heard),
        "failed_clips": sum(one.error is not None for one in heard),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
