#!/usr/bin/env python
"""What hearing at the length of the audio costs, and how much of it an adapter of lengths gives back.

    python scripts/measure_lengths.py data/valid.jsonl --lengths runs/lengths/lengths [--domain runs/tel/tel]
        [--seconds 2 5 10 20 30] [--clips 24] [--threads 1]

Clips of the manifest are joined, in its order, to about so many seconds each. Prints, as JSON, by length:

    stock       WER of the frozen model at 30 s (in windows of 30 s where there is more)
    cut         at the length of the audio, untrained
    adapted     the same with the adapter
    recovered   (cut - adapted) / (cut - stock)
    cpu         CPU seconds of encoder and decoder, over those of stock

With `--domain`, an adapter that was trained at 30 s, the same three with it running everywhere.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

from speech_peft.audio import io, manifest
from speech_peft.backbones.whisper import Whisper
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import Saved, read
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, corpus, count
from speech_peft.opening.loading import DEFAULT_WEIGHTS, filled, open_backbone

RATE, NATIVE = 16_000, 30.0
Clip = tuple[np.ndarray, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--lengths", required=True, help="the adapter of lengths, or one to compare with it")
    parser.add_argument("--domain", help="an adapter that was trained at 30 s")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2, 5, 10, 20, 30])
    parser.add_argument("--clips", type=int, default=24, help="of each length, at most")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    saved = {name: read(getattr(options, name)) for name in ("lengths", "domain") if getattr(options, name)}
    full = opened(options.weights, context="full")
    fit = opened(options.weights, context="fit", positions="extended", longest=2 * NATIVE)
    domain = ("domain",) if options.domain else ()
    running = {"stock": (full, domain), "cut": (fit, domain), "adapted": (fit, (*domain, "lengths"))}
    models = {id(b): attached(b, saved) for b in (full, fit)}
    for seconds in options.seconds:
        clips = joined(options.data, seconds, options.clips)
        scores = {name: score(b, models[id(b)], runs, clips) for name, (b, runs) in running.items()}
        stock, cut, adapted = (scores[name][0] for name in ("stock", "cut", "adapted"))
        line = {"seconds": seconds, "clips": len(clips), "words": sum(len(t.split()) for _, t in clips)}
        line |= {name: round(wer, 4) for name, (wer, _) in scores.items()}
        line |= {"recovered": round((cut - adapted) / (cut - stock), 3) if cut != stock else None}
        line |= {"cpu": {name: round(spent / scores["stock"][1], 3) for name, (_, spent) in scores.items()}}
        print(json.dumps(line), flush=True)


def opened(weights: str, **how: Any) -> Whisper:
    backbone = open_backbone("whisper", weights, **how)
    assert isinstance(backbone, Whisper)
    return backbone


def attached(backbone: Whisper, saved: dict[str, Saved]) -> AdaptedModel:
    methods = {name: one.method for name, one in saved.items()}
    return filled(AdaptedModel(backbone.module, backbone.sites(), methods), saved).eval()


def joined(data: str, seconds: float, most: int) -> list[Clip]:
    """Neighbours of the manifest with .3 s between, of 0.75 to 1 times so many seconds."""
    found: list[Clip] = []
    parts, said, length = [], [], 0.0
    for row in manifest.listed(data):
        own = row.duration or 0.0
        if parts and length + own > seconds:
            if length >= 0.75 * seconds:
                found.append((np.concatenate(parts), " ".join(said)))
            parts, said, length = [], [], 0.0
        if own <= seconds and len(found) < most:
            parts += [
                io.load(row.audio, RATE, row.start, row.duration).samples,
                np.zeros(int(0.3 * RATE), np.float32),
            ]
            said.append(row.text or "")
            length += own + 0.3
    return found[:most]


@torch.inference_mode()
def score(
    backbone: Whisper, model: AdaptedModel, runs: tuple[str, ...], clips: list[Clip]
) -> tuple[float, float]:
    """Corpus WER and CPU seconds."""
    write, heard, started = normaliser(), [], time.process_time()
    size = round(backbone.max_seconds * RATE)  # type: ignore[operator]
    for audio, _ in clips:
        text = ""
        for at in range(0, len(audio), size):
            window = torch.from_numpy(audio[at : at + size])[None]
            with model.using(*runs):
                features = backbone.prepare(window, torch.tensor([window.shape[1]]))
                text += " " + greedy(backbone, backbone.encode(features).states)[0].text
        heard.append(text)
    spent = time.process_time() - started
    said = [write(text, "en") for _, text in clips]
    pairs = align_words(said, [write(text, "en") for text in heard])
    return float(corpus(map(count, pairs)).rate or 0.0), spent


if __name__ == "__main__":
    main()
