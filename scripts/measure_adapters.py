#!/usr/bin/env python
"""Several adapters on one backbone in one pass, against as many passes of one adapter each.

    python scripts/measure_adapters.py [--adapters 6] [--clips 24] [--seconds 5] [--rounds 5]

Untrained adapters in the top third of Whisper's blocks, then in all of them, classify the same files: one
pass and single passes in turn, on the same threads, decoding included. Prints a JSON line for each placement;
`ratio` is the median over the rounds of the time of one pass over that of the single ones.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
from untrained_adapters import WEIGHTS, make

from speech_peft.classify.classifier import Classifier

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--adapters", type=int, default=6)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as folder:
        clips = noise(Path(folder), options.clips, options.seconds)
        for placement, share in (("top third", 1 / 3), ("all blocks", 1.0)):
            adapters = make(Path(folder) / placement, options.adapters, share, options.weights)
            together = Classifier(adapters)
            alone = [Classifier(adapter) for adapter in adapters]
            line = {
                "suite": "adapters",
                "placement": placement,
                **compared(together, alone, clips, options.rounds),
                "difference": difference(together, alone, clips[:4]),
                "adapters": options.adapters,
                "audio_seconds": options.clips * options.seconds,
                "weights": options.weights,
                "threads": options.threads,
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
            print(json.dumps(line), flush=True)


def noise(folder: Path, clips: int, seconds: float) -> list[Path]:
    """Recordings of noise: what a classifier costs does not depend on what it hears."""
    paths = [folder / f"{i}.wav" for i in range(clips)]
    for i, path in enumerate(paths):
        soundfile.write(path, 0.1 * np.random.default_rng(i).standard_normal(round(seconds * RATE)), RATE)
    return paths


def compared(
    together: Classifier, alone: Sequence[Classifier], clips: list[Path], rounds: int
) -> dict[str, float]:
    """Seconds of either way, and the median of the ratios of the rounds."""
    for classifier in (together, *alone):
        seconds_of([classifier], clips[:2])  # warm up
    one, many = [], []
    for number in range(rounds):  # in turn, and each first every other time: both meet the same load
        for way in ("one", "many") if number % 2 else ("many", "one"):
            if way == "one":
                one.append(seconds_of([together], clips))
            else:
                many.append(seconds_of(alone, clips))
    ratios = [a / b for a, b in zip(one, many, strict=True)]
    return {
        "ratio": round(median(ratios), 4),
        "ratio_best": round(min(ratios), 4),
        "ratio_worst": round(max(ratios), 4),
        "seconds_one_pass": round(median(one), 3),
        "seconds_single_passes": round(median(many), 3),
    }


def seconds_of(classifiers: Sequence[Classifier], clips: list[Path]) -> float:
    began = time.perf_counter()
    for classifier in classifiers:
        for result in classifier.classify(clips):
            assert result.error is None, result.error
    return time.perf_counter() - began


def difference(together: Classifier, alone: Sequence[Classifier], clips: list[Path]) -> float:
    """The largest difference between a probability of one pass and that of the adapter by itself."""
    return max(
        float(np.abs(a.heard[name].probabilities - b.heard[name].probabilities).max())
        for classifier in alone
        for a, b in zip(together.classify(clips), classifier.classify(clips), strict=True)
        for name in b.heard
    )


if __name__ == "__main__":
    main()
