#!/usr/bin/env python
"""What hearing the other microphones is worth to each: WER with them and without, by how many there are.

    python scripts/measure_views.py runs/views/views queen/test.jsonl [--clips 40] [--views 2 4 6]

Each clip sounds in a simulated room of its own that no training has (pyroomacoustics), and each microphone
has noise of its own, -5 to 20 dB. Prints a JSON object for each number of microphones, with WER and 95 %
intervals over clips:

    worst, best   the microphone of the lowest, of the highest SNR: alone, and together with the others
    all           every microphone
    surest        the text of the microphone that the decoder is surest of, which `transcribe` gives
    strangers     worst, but the others heard other clips
    gain          together less alone, clip by clip; for strangers, strangers less alone
    spread        of the states: how far microphones of a clip are from their mean, over how large that is

`--stock` adds the frozen model at 30 s for worst and best. Alone is the same model and adapters, told of no
others: the adapter of views then changes nothing.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor

from speech_peft.audio import io, manifest
from speech_peft.audio.degradations import array, noise
from speech_peft.audio.rows.row import Row
from speech_peft.backbones.whisper import Whisper
from speech_peft.core.context import Context
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.decoders.words.surest import surest
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.metrics.bootstrap import difference, interval
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count
from speech_peft.opening.loading import Opened, load

RATE, ROOMS = 16_000, 10_000  # the rooms of training have small numbers


@dataclass(frozen=True)
class Scene:
    """A clip as so many microphones hear it, and what is said."""

    text: str
    views: list[np.ndarray]
    snr: list[float]


@dataclass(frozen=True)
class Read:
    """What is written of each microphone of a clip, and how far their states are apart."""

    texts: list[Decoded]
    spread: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter")
    parser.add_argument("data")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--least-words", type=int, default=3)
    parser.add_argument("--snr", type=float, nargs=2, default=[-5.0, 20.0], metavar=("LOW", "HIGH"))
    parser.add_argument("--rt60", type=float, nargs=2, default=[0.2, 0.8], metavar=("LOW", "HIGH"))
    parser.add_argument("--rooms", choices=["simulated", "synthetic"], default="simulated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stock", action="store_true", help="the frozen model at 30 s as well")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scenes = [made(row, place, options) for place, row in enumerate(chosen(options))]
    opened, stock = load(options.adapter), load(None) if options.stock else None
    for views in options.views:
        fewer = [Scene(one.text, one.views[:views], one.snr[:views]) for one in scenes]
        print(json.dumps({"views": views, "clips": len(fewer), **measured(opened, stock, fewer)}), flush=True)


def chosen(options: argparse.Namespace) -> list[Row]:
    """So many rows that say something, from all over the manifest; those of like length follow each other."""
    usable = [
        row
        for row in manifest.listed(options.data)
        if len((row.text or "").split()) >= options.least_words and (row.duration or 0) <= 28
    ]
    taken = usable[:: max(1, len(usable) // options.clips)][: options.clips]
    return sorted(taken, key=lambda row: row.duration or 0)


def made(row: Row, place: int, options: argparse.Namespace) -> Scene:
    clip, most = io.load(row.audio, RATE, row.start, row.duration).samples, max(options.views)
    number = ROOMS + 1000 * options.seed + place
    generator = Generator(Philox(key=(number, 0)))
    responses, _ = array.responses_of(number, most, tuple(options.rt60), options.rooms, RATE)
    heard, snr = (
        array.heard(clip, responses),
        generator.uniform(options.snr[0], options.snr[1], most).tolist(),
    )
    for view, level in enumerate(snr):
        color = ("white", "pink", "brown")[int(generator.integers(3))]
        heard[view] = noise.mix(heard[view], noise.colored(color, len(clip), RATE, generator), level)
    return Scene(row.text or "", heard, snr)


def measured(opened: Opened, stock: Opened | None, scenes: list[Scene]) -> dict[str, object]:
    alone = [read(opened, one.views, 1) for one in scenes]
    together = [read(opened, one.views, len(one.views)) for one in scenes]
    among = [read(opened, beside(scenes, place), len(one.views)) for place, one in enumerate(scenes)]
    worst = [int(np.argmin(one.snr)) for one in scenes]
    best = [int(np.argmax(one.snr)) for one in scenes]
    found: dict[str, object] = {}
    for name, which in {"worst": worst, "best": best, "surest": None}.items():
        found[name] = compared(scenes, picked(alone, which), picked(together, which))
    found["strangers"] = compared(scenes, picked(alone, worst), picked(among, [0] * len(scenes)))
    every = [Scene(one.text, [], []) for one in scenes for _ in one.views]
    found["all"] = compared(every, texts(alone), texts(together))
    if stock is not None:
        for name, which in (("worst", worst), ("best", best)):
            views = [[one.views[view]] for one, view in zip(scenes, which, strict=True)]
            found[f"stock {name}"] = rate(scenes, [read(stock, one, 1).texts[0] for one in views])
    spreads = [float(np.mean([one.spread for one in each])) for each in (alone, together)]
    return {**found, "spread": {"alone": spreads[0], "together": spreads[1]}}


def beside(scenes: list[Scene], place: int) -> list[np.ndarray]:
    """The worst microphone of a clip, and others that heard the clips behind it, for as long."""
    own = scenes[place]
    first = own.views[int(np.argmin(own.snr))]
    others = [scenes[(place + view) % len(scenes)].views[view] for view in range(1, len(own.views))]
    return [first, *(np.pad(one[: len(first)], (0, max(0, len(first) - len(one)))) for one in others)]


@torch.inference_mode()
def read(opened: Opened, heard: Sequence[np.ndarray], views: int) -> Read:
    """What is written of rows of one length, so many of which are one recording."""
    backbone = opened.backbone
    assert isinstance(backbone, Whisper)
    audio = torch.from_numpy(np.stack(heard))
    features = backbone.prepare(audio, torch.full((len(heard),), audio.shape[1]))
    states = backbone.encode(features, Context(views=views)).states
    own = states[:, : int(features.lengths[0])]
    return Read(greedy(backbone, states), apart(own) if len(heard) > 1 else 0.0)


def apart(states: Tensor) -> float:
    mean = states.mean(0)
    return float((states - mean).square().mean() / mean.square().mean())


def picked(read: list[Read], which: list[int] | None) -> list[Decoded]:
    """Of each clip what is written of one microphone; without a choice, of the surest."""
    places = which or [surest(one.texts, [True] * len(one.texts)) for one in read]
    return [one.texts[place] for one, place in zip(read, places, strict=True)]


def texts(read: list[Read]) -> list[Decoded]:
    """Of all microphones of all clips."""
    return [text for one in read for text in one.texts]


def compared(scenes: list[Scene], alone: list[Decoded], together: list[Decoded]) -> dict[str, object]:
    (before, words), (after, _) = (errors(scenes, each) for each in (alone, together))
    gain = difference(before, after, words, range(len(scenes)))
    found: dict[str, object] = {"alone": rate(scenes, alone), "together": rate(scenes, together)}
    return found | {"gain": gain and [round(x, 4) for x in (gain.delta, gain.low, gain.high, gain.p)]}


def rate(scenes: list[Scene], texts: list[Decoded]) -> list[float]:
    """WER, and from where to where it may have come out."""
    wrong, words = errors(scenes, texts)
    span = interval(wrong, words, range(len(scenes)))
    return [round(x, 4) for x in (sum(wrong) / sum(words), *((span.low, span.high) if span else ()))]


def errors(scenes: list[Scene], texts: list[Decoded]) -> tuple[list[int], list[int]]:
    write = normaliser()
    pairs = align_words([write(s.text, "en") for s in scenes], [write(t.text, "en") for t in texts])
    counts = [count(pair) for pair in pairs]
    return [one.errors for one in counts], [one.reference for one in counts]


if __name__ == "__main__":
    main()
