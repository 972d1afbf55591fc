#!/usr/bin/env python
"""Two talkers at 0 dB, and which of them an adapter writes down when it hears a recording of one.

    python scripts/measure_speaker.py ADAPTER queen/test.jsonl [--restorer ADAPTER] [--pairs 60] [-o FILE]

Pairs are drawn of a manifest with a column `speaker`, two speakers each; the shorter clip lies
somewhere inside the longer. Of each speaker, 3 to 10 s of other clips are the reference. Prints, as JSON,
with intervals of 95 % over pairs drawn again:

    stock       WER of either one's words by the frozen model alone, at 30 s
    none        the same with the adapter and no reference
    wanted      with a reference of the one whose words are counted; ratio is wanted / none
    follows     share of references whose text is nearer to their speaker's words than to the other's
    switches    share of pairs where both texts are, so that another reference gives another one's words
    silent      WER under a silent reference; silent_change is (silent - none) / none, and silent_states the
                largest difference of the states from those without a reference

`--restorer`, an adapter that restores and listens too, is measured by SI-SDR in dB of what comes out: none
and silent without a reference and with a silent one, either against the longer clip; wanted against the clip
of the one in the reference, and other against the other's.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from ratios import mean, ratio
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as si_sdr

from speech_peft.audio import io, manifest
from speech_peft.audio.degradations.step import Scene
from speech_peft.audio.degradations.steps import Talker
from speech_peft.audio.rows.row import Row
from speech_peft.backbones.whisper import Whisper
from speech_peft.core.context import Context
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import Counts, align_words, count
from speech_peft.opening.enrolment import enrolled
from speech_peft.opening.loading import Opened, load
from speech_peft.train.data.voices import Voices

RATE = 16_000
Pair = tuple[int, int]
BOTH = ("first", "second")
"""References of the one who talks longer, and of the other."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter")
    parser.add_argument("data")
    parser.add_argument("--restorer", help="an adapter with a decoder of waveforms that listens too")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--least-words", type=int, default=3, help="of a clip that is mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for row in manifest.listed(options.data) if row.speaker]
    voices = Voices(rows, lambda place: wave(rows[place]), RATE)
    generator = np.random.default_rng(options.seed)
    pairs = drawn(rows, options.pairs, options.least_words, generator)
    mixtures = [mixed(wave(rows[a]), wave(rows[b]), generator) for a, b in pairs]
    opened = load(options.adapter)
    references = {
        name: [voices.same(pair[which], (3.0, 10.0), options.seed, 0) for pair in pairs]
        for which, name in enumerate(BOTH)
    }
    references["silent"] = [np.zeros(5 * RATE, np.float32)] * len(pairs)
    sounds = [sound for sound, _ in mixtures]
    heard = {"stock": texts(load(None), sounds), "none": texts(opened, sounds)}
    heard |= {name: texts(opened, sounds, given) for name, given in references.items()}
    table = {**found(rows, pairs, heard), "silent_states": silence(opened, sounds[0])}
    if options.restorer:
        table["restored"] = restored(load(options.restorer), mixtures, references)
    print(json.dumps(table, indent=1))
    if options.out:
        options.out.write_text(json.dumps(table, indent=1))


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


def mixed(
    longer: np.ndarray, shorter: np.ndarray, generator: Generator
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The sum, and its two parts; so soft that the sum is not scaled."""
    longer = longer * np.float32(0.2 / max(1e-3, np.abs(longer).max()))
    scene = Scene(RATE, generator, None, lambda _: shorter[: len(longer)])
    both = Talker(snr=(0, 0)).apply(longer, scene)[0]
    return both, (longer, both - longer)


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


@torch.inference_mode()
def restored(
    opened: Opened,
    mixtures: list[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]],
    references: dict[str, list[np.ndarray]],
) -> dict[str, Any]:
    """SI-SDR of what a restorer makes of each mixture, by the reference that it hears."""
    backbone, decoder = opened.backbone, opened.decoder
    assert decoder is not None
    assert decoder.sample_rate == RATE
    scores: dict[str, list[float]] = {name: [] for name in ("none", "silent", "wanted", "other")}
    for place, (sound, parts) in enumerate(mixtures):
        made = {}
        for name in ("none", *references):
            ctx = None
            if name != "none":
                given = one(references[name][place])
                ctx = Context(reference=enrolled(opened.model, backbone, *given))
            states = backbone.encode(backbone.prepare(*one(sound)), ctx).states
            audio = torch.from_numpy(sound)[None]
            generator = torch.Generator().manual_seed(0)
            made[name] = decoder(states, audio if decoder.needs_waveform else None, generator=generator)[
                0
            ].numpy()
        scores["none"].append(nearness(made["none"], parts[0]))
        scores["silent"].append(nearness(made["silent"], parts[0]))
        for which, name in enumerate(BOTH):
            scores["wanted"].append(nearness(made[name], parts[which]))
            scores["other"].append(nearness(made[name], parts[1 - which]))
    table = {name: mean(values) for name, values in scores.items()}
    changes = [abs(a - b) for a, b in zip(scores["silent"], scores["none"], strict=True)]
    return {**table, "silent_change_db": max(changes)}


def nearness(made: np.ndarray, wanted: np.ndarray) -> float:
    """SI-SDR in dB, of as much as both have."""
    size = min(len(made), len(wanted))
    made, wanted = made[:size].astype(np.float64), wanted[:size].astype(np.float64)
    return float(si_sdr(torch.from_numpy(made), torch.from_numpy(wanted), zero_mean=True))


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
    own = [list(errors(said[which], heard[name])) for which, name in enumerate(BOTH)]
    other = [list(errors(said[1 - which], heard[name])) for which, name in enumerate(BOTH)]
    counts = {
        name: [list(errors(said[which], heard[name])) for which in (0, 1)]
        for name in ("stock", "none", "silent")
    }
    counts["wanted"] = own
    nearer = [
        [(mine.rate or 0) < (theirs.rate or 0) for mine, theirs in zip(*both, strict=True)]
        for both in zip(own, other, strict=True)
    ]
    columns = {
        name: [a.errors + b.errors for a, b in zip(*each, strict=True)] for name, each in counts.items()
    }
    columns["words"] = [a.reference + b.reference for a, b in zip(*own, strict=True)]
    examples = list(zip(*said, heard["none"], heard["first"], heard["second"], strict=True))[:5]
    return {
        "pairs": len(pairs),
        **{name: ratio(columns, {name: 1}, {"words": 1}) for name in counts},
        "ratio": ratio(columns, {"wanted": 1}, {"none": 1}),
        "silent_change": ratio(columns, {"silent": 1, "none": -1}, {"none": 1}),
        "follows": mean([sum(both) / 2 for both in zip(*nearer, strict=True)]),
        "switches": mean([float(all(both)) for both in zip(*nearer, strict=True)]),
        "examples": examples,
    }


def errors(said: list[str], heard: list[str]) -> Iterator[Counts]:
    write = normaliser()
    yield from map(count, align_words([write(t, "en") for t in said], [write(t, "en") for t in heard]))


if __name__ == "__main__":
    main()
