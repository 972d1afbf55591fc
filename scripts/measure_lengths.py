#!/usr/bin/env python
"""What hearing at the length of the audio costs, and how much of it an adapter of lengths gives back.

    python scripts/measure_lengths.py data/test.jsonl --lengths runs/lengths/lengths -o lengths.jsonl
        [--domain runs/tel/tel] [--rival runs/bottleneck/lengths] [--seconds 2 5 10 20 30 45 60]
        [--weights ADDRESS] [--positions extended|interpolated] [--clips 60] [--threads 1]

Clips of the manifests are joined, in their order, to about so many seconds each. Prints, as JSON, first the
size of each adapter, and then for each length, with intervals of 95 % over clips drawn again:

    wer         stock: the frozen model at 30 s, where there is more in windows of whole clips; cut: at the
                length of the audio, untrained; adapted: the same with the adapter; native: at 30 s with it
    recovered   (cut - adapted) / (cut - stock)
    relative    (adapted - stock) / stock, the same of native, and so on
    speed       CPU seconds of encoder and decoder of stock, over those of each

With `--domain`, an adapter that was trained at 30 s, it runs everywhere, in stock too; bare is the frozen
model without it. With `--rival`, another adapter in the place of the adapter of lengths is measured too: its
columns begin with rival. What stands in `-o` is not measured again: the same command goes on behind it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ratios import ratio
from safetensors import safe_open

from speech_peft.audio import io, manifest
from speech_peft.backbones.whisper import Whisper
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import Saved, read
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count
from speech_peft.opening.loading import DEFAULT_WEIGHTS, filled, open_backbone

RATE, NATIVE = 16_000, 30.0
Clip = tuple[list[np.ndarray], str]
"""Recordings, each with the pause behind it, and what is said in all."""


def main() -> None:
    options = told()
    torch.set_num_threads(options.threads)
    names = [name for name in ("lengths", "domain", "rival") if getattr(options, name)]
    saved = {name: read(getattr(options, name)) for name in names}
    print(json.dumps({name: size(one) for name, one in saved.items()}), flush=True)
    full = opened(options.weights, context="full")
    fit = opened(options.weights, context="fit", positions=options.positions, longest=2 * NATIVE)
    models = {id(b): attached(b, saved) for b in (full, fit)}
    before = options.out.read_text().splitlines() if options.out and options.out.is_file() else []
    there = {json.loads(line)["seconds"] for line in before}
    for line in before:
        print(line)
    for seconds in options.seconds:
        if seconds in there:
            continue
        clips = joined(options.data, seconds, options.clips)
        scores = {
            name: score(backbone, models[id(backbone)], runs, clips)
            for name, (backbone, runs) in systems(full, fit, saved).items()
        }
        line = json.dumps({"seconds": seconds, "clips": len(clips), **told_of(clips, scores)})
        print(line, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(line + "\n")


def told() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--lengths", required=True, help="the adapter of lengths")
    parser.add_argument("--domain", help="an adapter that was trained at 30 s")
    parser.add_argument("--rival", help="one of the same size in the place of the adapter of lengths")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2, 5, 10, 20, 30])
    parser.add_argument(
        "--positions",
        choices=("extended", "interpolated"),
        default="extended",
        help="at the length of the audio",
    )
    parser.add_argument("--clips", type=int, default=60, help="of each length, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path)
    return parser.parse_args()


def systems(
    full: Whisper, fit: Whisper, saved: dict[str, Saved]
) -> dict[str, tuple[Whisper, tuple[str, ...]]]:
    """Which backbone hears, and which adapters run."""
    domain = ("domain",) if "domain" in saved else ()
    found: dict[str, tuple[Whisper, tuple[str, ...]]] = {"bare": (full, ())} if domain else {}
    found |= {"stock": (full, domain), "cut": (fit, domain)}
    found |= {"adapted": (fit, (*domain, "lengths")), "native": (full, (*domain, "lengths"))}
    if "rival" in saved:
        found |= {"rival": (fit, (*domain, "rival")), "rival native": (full, (*domain, "rival"))}
    return found


def size(saved: Saved) -> dict[str, Any]:
    """What an adapter is, its numbers, and what it takes on disk."""
    file = saved.folder / "adapter.safetensors"
    with safe_open(file, "pt") as tensors:
        numbers = sum(int(np.prod(tensors.get_slice(key).get_shape())) for key in tensors.keys())  # noqa: SIM118
    bytes_ = sum(each.stat().st_size for each in saved.folder.iterdir() if each.suffix != ".yaml")
    return {"method": saved.method.name, "numbers": numbers, "kilobytes": round(bytes_ / 1000, 1)}


def opened(weights: str, **how: Any) -> Whisper:
    backbone = open_backbone("whisper", weights, **how)
    assert isinstance(backbone, Whisper)
    return backbone


def attached(backbone: Whisper, saved: dict[str, Saved]) -> AdaptedModel:
    methods = {name: one.pinned for name, one in saved.items()}
    for one in saved.values():
        one.check_backbone(backbone.card())
    return filled(AdaptedModel(backbone.module, backbone.sites(), methods), saved).eval()


def joined(data: list[str], seconds: float, most: int) -> list[Clip]:
    """Neighbours of the manifests with .3 s between, of 0.75 to 1 times so many seconds."""
    found: list[Clip] = []
    parts, said, length = [], [], 0.0
    for row in (row for name in data for row in manifest.listed(name)):
        own = row.duration or 0.0
        if parts and length + own > seconds:
            if length >= 0.75 * seconds:
                found.append((parts, " ".join(said)))
            parts, said, length = [], [], 0.0
        if len(found) == most:
            break
        if own <= seconds:
            samples = io.load(row.audio, RATE, row.start, row.duration).samples
            parts = [*parts, np.concatenate((samples, np.zeros(int(0.3 * RATE), np.float32)))]
            said.append(row.text or "")
            length += own + 0.3
    return found


def windows(parts: list[np.ndarray], samples: int) -> list[np.ndarray]:
    """As few as hold all recordings, none of them cut unless one alone is longer."""
    made = [parts[0]]
    for part in parts[1:]:
        if len(made[-1]) + len(part) <= samples:
            made[-1] = np.concatenate((made[-1], part))
        else:
            made.append(part)
    return [window[at : at + samples] for window in made for at in range(0, len(window), samples)]


@torch.inference_mode()
def score(
    backbone: Whisper, model: AdaptedModel, runs: tuple[str, ...], clips: list[Clip]
) -> tuple[np.ndarray, float]:
    """Errors and words of each clip, and CPU seconds."""
    write, heard, started = normaliser(), [], time.process_time()
    for parts, _ in clips:
        text = ""
        for samples in windows(parts, round((backbone.max_seconds or NATIVE) * RATE)):
            window = torch.from_numpy(samples)[None]
            with model.using(*runs):
                features = backbone.prepare(window, torch.tensor([window.shape[1]]))
                text += " " + greedy(backbone, backbone.encode(features).states)[0].text
        heard.append(text)
    spent = time.process_time() - started
    said = [write(text, "en") for _, text in clips]
    counts = map(count, align_words(said, [write(text, "en") for text in heard]))
    return np.array([(one.errors, one.reference) for one in counts], float).reshape(-1, 2), spent


def told_of(clips: list[Clip], scores: dict[str, tuple[np.ndarray, float]]) -> dict[str, Any]:
    """All figures of one length; of each ratio its interval."""
    names, words = list(scores), scores["stock"][0][:, 1]
    columns = {name: found[:, 0].tolist() for name, (found, _) in scores.items()} | {"words": words.tolist()}
    others = [name for name in names if name not in ("stock", "bare", "cut")]
    return {
        "words": int(words.sum()),
        "wer": {name: ratio(columns, {name: 1}, {"words": 1}) for name in names},
        "recovered": {
            name: ratio(columns, {"cut": 1, name: -1}, {"cut": 1, "stock": -1})
            for name in others
            if "native" not in name
        },
        "relative": {name: ratio(columns, {name: 1, "stock": -1}, {"stock": 1}) for name in others},
        "speed": {name: round(scores["stock"][1] / scores[name][1], 2) for name in names},
    }


if __name__ == "__main__":
    main()
