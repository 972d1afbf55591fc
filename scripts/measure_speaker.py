#!/usr/bin/env python
"""Two talkers at 0 dB, and which of them an adapter writes down when it hears a recording of one.

    python scripts/measure_speaker.py ADAPTER queen/test.jsonl [--pairs 30] [--seed 0] [--threads 1]

Pairs are drawn of a manifest with a column `speaker`, two speakers each; the shorter clip lies
somewhere inside the longer. Of each speaker, 3 to 10 s of other clips are the reference. Prints, as JSON:

    stock       WER of either one's words by the frozen model alone, at 30 s
    none        the same with the adapter and no reference
    wanted      with a reference of the one whose words are counted
    ratio       wanted / none
    follows     share of references whose text is nearer to their speaker's words than to the other's
    silent      the largest difference of the states under a silent reference from those without one
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator

from speech_peft.audio import io, manifest
from speech_peft.audio.degradations.step import Scene
from speech_peft.audio.degradations.steps import Talker
from speech_peft.audio.rows.row import Row
from speech_peft.backbones.whisper import Whisper
from speech_peft.core.context import Context
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import Counts, align_words, corpus, count
from speech_peft.opening.enrolment import enrolled
from speech_peft.opening.loading import Opened, load
from speech_peft.train.data.voices import Voices

RATE = 16_000
Pair = tuple[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter")
    parser.add_argument("data")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--least-words", type=int, default=3, help="of a clip that is mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for row in manifest.listed(options.data) if row.speaker]
    voices = Voices(rows, lambda place: wave(rows[place]), RATE)
    generator = np.random.default_rng(options.seed)
    pairs = drawn(rows, options.pairs, options.least_words, generator)
    mixtures = [mixed(wave(rows[a]), wave(rows[b]), generator) for a, b in pairs]
    opened, stock = load(options.adapter), load(None)
    heard: dict[str, list[str]] = {"stock": texts(stock, mixtures), "none": texts(opened, mixtures)}
    for name, which in (("first", 0), ("second", 1)):
        references = [voices.same(pair[which], (3.0, 10.0), options.seed, 0) for pair in pairs]
        heard[name] = texts(opened, mixtures, references)
    print(json.dumps({**found(rows, pairs, heard), "silent": silence(opened, mixtures[0])}, indent=1))


def wave(row: Row) -> np.ndarray:
    return io.load(row.audio, RATE, row.start, row.duration).samples


def drawn(rows: list[Row], pairs: int, words: int, generator: Generator) -> list[Pair]:
    """Places of two clips of two speakers, the longer first."""
    long = [i for i, row in enumerate(rows) if len((row.text or "").split()) >= words]
    chosen: list[Pair] = []
    while len(chosen) < pairs:
        a, b = (int(i) for i in generator.choice(long, 2, replace=False))
        if rows[a].speaker != rows[b].speaker:
            chosen.append((a, b) if (rows[a].duration or 0) >= (rows[b].duration or 0) else (b, a))
    return chosen


def mixed(longer: np.ndarray, shorter: np.ndarray, generator: Generator) -> np.ndarray:
    return Talker(snr=(0, 0)).apply(longer, Scene(RATE, generator, None, lambda _: shorter[: len(longer)]))[0]


@torch.inference_mode()
def texts(opened: Opened, clips: list[np.ndarray], references: list[np.ndarray] | None = None) -> list[str]:
    """What is written of each clip, with the reference at its place."""
    backbone, written = opened.backbone, []
    assert isinstance(backbone, Whisper)
    for place, clip in enumerate(clips):
        features = backbone.prepare(*one(clip))
        ctx = None
        if references is not None:
            ctx = Context(reference=enrolled(opened.model, backbone, *one(references[place])))
        written.append(greedy(backbone, backbone.encode(features, ctx).states)[0].text)
    return written


def one(clip: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(clip)[None], torch.tensor([len(clip)])


@torch.inference_mode()
def silence(opened: Opened, clip: np.ndarray) -> float:
    backbone = opened.backbone
    features = backbone.prepare(*one(clip))
    reference = enrolled(opened.model, backbone, *one(np.zeros(5 * RATE, np.float32)))
    states = backbone.encode(features, replace(Context(), reference=reference)).states
    return float((states - backbone.encode(features).states).abs().max())


def found(rows: list[Row], pairs: list[Pair], heard: dict[str, list[str]]) -> dict[str, object]:
    said = [[rows[pair[which]].text or "" for pair in pairs] for which in (0, 1)]
    own = [*errors(said[0], heard["first"]), *errors(said[1], heard["second"])]
    other = [*errors(said[1], heard["first"]), *errors(said[0], heard["second"])]
    rates = {
        name: rate([*errors(said[0], heard[name]), *errors(said[1], heard[name])])
        for name in ("stock", "none")
    }
    wanted = rate(own)
    follows = [(mine.rate or 0) < (theirs.rate or 0) for mine, theirs in zip(own, other, strict=True)]
    examples = list(zip(*said, heard["none"], heard["first"], heard["second"], strict=True))[:5]
    return {
        "pairs": len(pairs),
        **rates,
        "wanted": wanted,
        "ratio": wanted / rates["none"],
        "follows": float(np.mean(follows)),
        "examples": examples,
    }


def errors(said: list[str], heard: list[str]) -> Iterator[Counts]:
    write = normaliser()
    yield from map(count, align_words([write(t, "en") for t in said], [write(t, "en") for t in heard]))


def rate(counts: list[Counts]) -> float:
    return float(corpus(counts).rate or 0.0)


if __name__ == "__main__":
    main()
