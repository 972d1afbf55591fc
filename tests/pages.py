"""One page of each kind that the toolkit writes, small, of synthesised sound, with long names in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from speech_peft.audio import io
from speech_peft.bench.report import asr as report
from speech_peft.bench.report import classify as class_report
from speech_peft.bench.report import restore as restoration_report
from speech_peft.bench.scores import asr, classify
from speech_peft.bench.scores import restore as restoration_scores
from speech_peft.cli import data as data_cli
from speech_peft.files.atomic import write_text
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.restoration import chosen
from speech_peft.metrics.slices import Options
from speech_peft.predictions.classes import ClassPrediction
from speech_peft.predictions.restorations import Restoration
from speech_peft.predictions.words import Prediction

RATE = 16_000
LONG = "a_name_that_is_longer_than_any_telephone_is_wide_and_has_no_place_to_break/" * 2 + "end"
MEASURED = {
    "manifest": "corpora/prompts/test.jsonl",
    "rows": 3,
    "degradation": "telephone",
    "seed": 7,
    "track": None,
    "date": "2026-05-01T10:20:30+00:00",
    "version": "9.8.7",
}
ADAPTED = {"model": "org/whisper", "adapter": "runs/phone", "adapter_sha256": "0123456789abcdef" * 4}
HARDWARE = {"device": "cpu", "processor": "Some CPU", "cores": 2, "threads": 1, "torch": "2.x"}

SAID = "press one for sales"
HEARD = {  # what the base and the adapter hear
    "u10": ("press for cells now please", "press one for sales"),
    "u2": ("press one for sales", "press one for snails"),
    LONG: (LONG, SAID),
}


def tone(number: int = 0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * (300 + 60 * number) * np.arange(RATE) / RATE)).astype(np.float32)


def sound(folder: Path, name: str, number: int = 0) -> str:
    io.save(folder / f"{name}.wav", tone(number), RATE)
    return str(folder / f"{name}.wav")


def loaded(_: Any) -> tuple[np.ndarray, int]:
    return tone(), RATE


def asr_runs(
    measured: dict[str, Any] = MEASURED, names: tuple[str, str] = ("base", "phone")
) -> list[asr.Run]:
    """The second run mends two utterances and breaks `u2`."""
    rule = normaliser("none")
    configs: list[dict[str, Any]] = [{"model": "org/whisper"}, ADAPTED]
    return [
        asr.Run(
            name,
            asr.score(
                [
                    Prediction(id, f"{id}.wav", 1.0 + at, 0.1, SAID, heard[number], speaker="ann", lang="en")
                    for at, (id, heard) in enumerate(HEARD.items())
                ],
                rule,
            ),
            config=configs[number],
            hardware=HARDWARE,
            measured=measured,
        )
        for number, name in enumerate(names)
    ]


def asr_page(folder: Path, **changed: Any) -> str:
    runs = asr_runs(**changed)
    found = asr.scores(runs, normaliser("none"), Options(resamples=50, slice_by=("duration",), min_n=1))
    return report.render(found, runs, folder, loaded)


def class_page(folder: Path) -> str:
    """The second run breaks `b`; both confuse `c`."""

    def clip(name: str, label: str, **given: float) -> ClassPrediction:
        return ClassPrediction(name, f"{name}.wav", label, given, end=1.0, columns={"room": name})

    before = (clip("a", "cat", cat=0.9, dog=0.1), clip("b", "cat", cat=0.8, dog=0.2))
    after = (clip("a", "cat", cat=0.6, dog=0.4), clip("b", "cat", cat=0.2, dog=0.8))
    c = clip("c", "dog", cat=0.7, dog=0.3)
    runs = [
        classify.Run("probe", (*before, c), config={"adapters": {"": "runs/probe"}}, measured=MEASURED),
        classify.Run(LONG, (*after, c), config={"model": "org/whisper"}, measured=MEASURED),
    ]
    found = classify.scores(runs, Options(resamples=50, slice_by=("room",), min_n=1))
    return class_report.render(found, runs, folder, loaded)


def restoration_page(folder: Path) -> str:
    """The restorer mends `r1`, harms `r2` and fails at `r3`."""
    gained = {"r1": 9.0, "r2": -4.0, "r3": 0.0}

    def made(system: str, id: str) -> Restoration:
        failed = (system, id) == ("mine", "r3")
        figure = {"degraded": 3.0, "clean": 60.0, "mine": 3.0 + gained[id]}[system]
        return Restoration(
            id,
            "" if failed else sound(folder, f"{system}-{id}", int(id[1])),
            "in.wav",
            duration=1.0,
            text=SAID,
            pred_text=SAID,
            words=None,
            figures={} if failed else {"si_sdr": figure, "lsd": 1.0, "loudness": -20.0},
            error="is not speech" if failed else None,
        )

    runs = [
        restoration_scores.Run(name, tuple(made(name, id) for id in gained), config=config, measured=MEASURED)
        for name, config in {"degraded": {}, "clean": {}, "mine": {"about": ADAPTED}}.items()
    ]
    found = restoration_scores.scores(
        runs, chosen("si_sdr,lsd,loudness"), Options(resamples=50, slice_by=("duration",), min_n=1)
    )
    return restoration_report.render(found, runs, folder)


def preview(folder: Path) -> Path:
    rows = [{"audio_filepath": sound(folder, f"t{at}", at), "text": SAID, "id": f"t{at}"} for at in range(3)]
    write_text(folder / "train.jsonl", "\n".join(map(json.dumps, rows)))
    recipe = {
        "out": str(folder / "run"),
        "backbone": {"name": "whisper", "weights": "nowhere"},
        "adapters": {"a": {"method": "bottleneck"}},
        "task": {"name": "asr", "decoder": "whisper"},
        "data": {"train": str(folder / "train.jsonl"), "degrade": [{"kind": "noise", "snr": 5}]},
        "trainer": {"max_steps": 1},
    }
    write_text(folder / "recipe.yaml", json.dumps(recipe))
    page = folder / "preview.html"
    assert data_cli.main(["preview", str(folder / "recipe.yaml"), "-o", str(page)]) == 0
    return page


def written(folder: Path) -> dict[str, Path]:
    """All of them, as files, by kind."""
    texts = {"asr": asr_page(folder), "classify": class_page(folder), "restore": restoration_page(folder)}
    for kind, text in texts.items():
        write_text(folder / f"{kind}.html", text)
    return {kind: folder / f"{kind}.html" for kind in texts} | {"preview": preview(folder)}
