#!/usr/bin/env python
"""This kind of sound, at these moments: whether what is made is of the kind, and sounds then.

    python scripts/measure_foley.py ADAPTER train.jsonl valid.jsonl --where fold=1,2,3 fold=4 -o foley.json

ADAPTER is a folder of the recipe generate/foley. For each of N sounds a clip of the second manifest is the
kind of sound that is wanted, and moments are drawn: 2 to 4, at least 0.6 s apart, as long as sounds of its
class are. Prints, as JSON:

    onset_f1        of the onsets that are found in what is made, against the moments: to within 50 ms
      control         told kind and moments
      chance          told the kind alone, from the same noise
      shifted         told moments so much later, against these
      unshifted       the same sound against the moments as they were
      ceiling         of clips of the second manifest in sounds made of their own spectrograms
    shift           seconds by which onsets of the two moved, the median over pairs
    accuracy        of a probe on another frozen encoder (--judge), learned from the first manifest's clips:
                    on `real` clips of the second manifest, on `copies` made of their spectrograms, on sounds
                    of `control` and `chance`, and on those of the bare model told the `class`
    scale_0         the largest difference of spectrograms, the bare model's from those with all adapters at 0
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speech_peft.audio import io, manifest
from speech_peft.audio.io import Samples
from speech_peft.audio.rows.row import Row
from speech_peft.core.listening.moments import Interval
from speech_peft.decoders.mel_diffusion.sample import Sampling
from speech_peft.generate.generator import Generator
from speech_peft.generate.listener import Listener
from speech_peft.metrics.onsets import Match, intervals, matched, onsets
from speech_peft.train.tasks.generate import PEAK

RATE, BATCH = 16_000, 8
GAP, LEAST, MOST = 0.6, 2, 4  # seconds between moments, and how many there are


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter")
    parser.add_argument("train")
    parser.add_argument("valid")
    parser.add_argument("--where", nargs=2, default=("", ""), help="COLUMN=A,B of train and of valid.")
    parser.add_argument("--weights", help="The mel diffusion, where it is another folder by now.")
    parser.add_argument("--judge", default="whisper:base", help="FAMILY:ADDRESS of the frozen encoder.")
    parser.add_argument("--sounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--shift", type=float, default=0.4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("foley.json"))
    parser.add_argument("--keep", type=Path, help="A folder for the sounds that are made.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.monotonic()
    generator = Generator(options.adapter, options.weights, options.device)
    known = generator.backbone.classes
    train, valid = (
        rows_of(p, w, known) for p, w in zip((options.train, options.valid), options.where, strict=True)
    )
    found = measure(generator, train, valid, options)
    found["minutes"] = round((time.monotonic() - began) / 60, 1)
    print(json.dumps(found, indent=1))
    options.out.write_text(json.dumps(found, indent=1))


def measure(
    generator: Generator, train: Sequence[Row], valid: Sequence[Row], options: argparse.Namespace
) -> dict[str, Any]:
    """All figures."""
    draw = np.random.default_rng(options.seed)
    clips = {row.id: loud(row) for row in (*train, *valid)}
    lengths = typical(valid, clips)
    models = spread(valid, options.sounds, draw)
    wanted = [moments(draw, options.seconds, options.shift, lengths[row.label or ""]) for row in models]
    later = [[(a + options.shift, b + options.shift) for a, b in one] for one in wanted]
    how = Sampling(steps=options.steps, guidance=options.guidance)
    made = {
        "control": sounds(generator, models, clips, wanted, how, options.seconds),
        "chance": sounds(generator, models, clips, None, how, options.seconds),
        "shifted": sounds(generator, models, clips, later, how, options.seconds),
        "class": bare(generator, models, how, options.seconds),
    }
    copies = [copy(generator, clips[row.id]) for row in valid]
    if options.keep:
        keep(options.keep, made, models, wanted)
    starts = {
        name: [onsets(one, RATE).tolist() for one in made[name]] for name in ("control", "chance", "shifted")
    }
    truth, truth_later = ([[a for a, _ in one] for one in each] for each in (wanted, later))
    own = [onsets(clips[row.id], RATE).tolist() for row in valid]
    return {
        "sounds": len(models),
        "onset_f1": {
            "control": f1(truth, starts["control"]),
            "chance": f1(truth, starts["chance"]),
            "shifted": f1(truth_later, starts["shifted"]),
            "unshifted": f1(truth, starts["shifted"]),
            "ceiling": f1(own, [onsets(one, RATE).tolist() for one in copies]),
        },
        "shift": {"asked": options.shift, "found": moved(starts, options.shift)},
        "accuracy": judged(options.judge, train, valid, clips, copies, models, made),
        "scale_0": scale_0(generator, models, clips, wanted, how, options.seconds),
    }


# ---- what is asked for ------------------------------------------------------------------------------------


def rows_of(path: str, where: str, known: Sequence[str]) -> list[Row]:
    rows: Sequence[Row] = [row for row in manifest.listed(path) if row.label in known]
    if where:
        column, _, values = where.partition("=")
        rows = [row for row in rows if str(row.extra.get(column)) in values.split(",")]
    if not rows:
        raise SystemExit(f"{path}: no row {where} of the classes {', '.join(known)}")
    return list(rows)


def loud(row: Row) -> Samples:
    """The clip as training heard it."""
    samples = io.load(row.audio, RATE).samples
    return (samples * (PEAK / max(float(np.abs(samples).max(initial=0.0)), 1e-5))).astype(np.float32)


def typical(rows: Sequence[Row], clips: Mapping[str, Samples]) -> dict[str, float]:
    """How long a sound of each class lasts: the median."""
    lasting: dict[str, list[float]] = {}
    for row in rows:
        lasting.setdefault(row.label or "", []).extend(b - a for a, b in intervals(clips[row.id], RATE))
    return {label: float(np.median(each or [0.2])) for label, each in lasting.items()}


def spread(rows: Sequence[Row], count: int, draw: np.random.Generator) -> list[Row]:
    """So many rows, of all classes in turn."""
    by_class: dict[str, list[Row]] = {}
    for place in draw.permutation(len(rows)):
        by_class.setdefault(rows[place].label or "", []).append(rows[place])
    groups = [by_class[label] for label in sorted(by_class)]
    return [groups[i % len(groups)][i // len(groups) % len(groups[i % len(groups)])] for i in range(count)]


def moments(draw: np.random.Generator, seconds: float, shift: float, lasting: float) -> list[Interval]:
    """Beginnings at random, apart from each other and with room for the shift."""
    count = int(draw.integers(LEAST, MOST + 1))
    room = seconds - shift - 0.5 - GAP * (count - 1)
    starts = np.sort(draw.uniform(0.1, max(0.2, room), count)) + GAP * np.arange(count)
    return [(float(a), float(a + min(lasting, GAP - 0.1))) for a in starts]


# ---- what is made -----------------------------------------------------------------------------------------


def sounds(
    generator: Generator,
    models: Sequence[Row],
    clips: Mapping[str, Samples],
    told: Sequence[list[Interval]] | None,
    how: Sampling,
    seconds: float,
) -> list[Samples]:
    found: list[Samples] = []
    for at in range(0, len(models), BATCH):
        part = models[at : at + BATCH]
        noise = generator.noise(seconds, range(at, at + len(part)))
        memory = generator.heard([clips[row.id] for row in part])
        when = None if told is None else told[at : at + BATCH]
        found += generator.waveforms(generator.spectrograms(noise, [None] * len(part), memory, when, how))
    return found


def bare(generator: Generator, models: Sequence[Row], how: Sampling, seconds: float) -> list[Samples]:
    """By the model alone, told the class."""
    found: list[Samples] = []
    with generator.model.using():
        for at in range(0, len(models), BATCH):
            kinds = [row.label for row in models[at : at + BATCH]]
            noise = generator.noise(seconds, range(at, at + len(kinds)))
            found += generator.waveforms(generator.spectrograms(noise, kinds, None, None, how))
    return found


def copy(generator: Generator, samples: Samples) -> Samples:
    """A recording's spectrogram as sound again."""
    audio, lengths = torch.from_numpy(samples)[None], torch.tensor([len(samples)])
    values = generator.backbone.prepare(audio, lengths).values
    return generator.waveforms(values)[0]


def scale_0(
    generator: Generator,
    models: Sequence[Row],
    clips: Mapping[str, Samples],
    wanted: Sequence[list[Interval]],
    how: Sampling,
    seconds: float,
) -> float:
    part = models[:BATCH]
    noise, kinds = generator.noise(seconds, range(len(part))), [row.label for row in part]
    with generator.model.using():
        alone = generator.spectrograms(noise, kinds, None, None, how)
    parts = [
        generator.model.at(name, site) for name, sites in generator.model.sites.items() for site in sites
    ]
    before = [getattr(part, "scale") for part in parts]  # noqa: B009
    for one in parts:
        one.scale = 0.0  # type: ignore[assignment]
    memory = generator.heard([clips[row.id] for row in part])
    told = generator.spectrograms(noise, kinds, memory, wanted[: len(part)], how)
    for one, scale in zip(parts, before, strict=True):
        one.scale = scale
    return float((told - alone).abs().max())


def keep(
    folder: Path,
    made: Mapping[str, Sequence[Samples]],
    models: Sequence[Row],
    wanted: Sequence[list[Interval]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in made.items():
        for i, samples in enumerate(each):
            io.save(folder / f"{i:02d}-{models[i].label}-{name}.wav", samples, RATE)
    told = {f"{i:02d}": one for i, one in enumerate(wanted)}
    (folder / "moments.json").write_text(json.dumps(told, indent=1))


# ---- figures ----------------------------------------------------------------------------------------------


def f1(wanted: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> float:
    """Over all sounds together."""
    return round(sum(map(matched, wanted, found), Match()).f1, 3)


def moved(starts: Mapping[str, Sequence[Sequence[float]]], shift: float) -> float | None:
    """How much later sounds of `shifted` begin than those of `control`, of pairs that are near the shift."""
    by = [
        b - a
        for before, after in zip(starts["control"], starts["shifted"], strict=True)
        for a in before
        for b in after
        if abs(b - a - shift) < shift / 2
    ]
    return round(float(np.median(by)), 3) if by else None


def judged(
    judge: str,
    train: Sequence[Row],
    valid: Sequence[Row],
    clips: Mapping[str, Samples],
    copies: Sequence[Samples],
    models: Sequence[Row],
    made: Mapping[str, Sequence[Samples]],
) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    family, _, address = judge.partition(":")
    listener = Listener({"name": family, "weights": address, "context": "fit"})

    def seen(each: Sequence[Samples]) -> np.ndarray:
        rows = [listener(torch.from_numpy(one)[None], torch.tensor([len(one)]))[0, 0] for one in each]
        return torch.stack(rows).numpy()

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    probe.fit(seen([clips[row.id] for row in train]), [row.label for row in train])
    labels = {"valid": [row.label for row in valid], "models": [row.label for row in models]}
    groups = {
        "real": ([clips[row.id] for row in valid], "valid"),
        "copies": (copies, "valid"),
        **{name: (made[name], "models") for name in ("control", "chance", "class")},
    }
    return {
        name: round(float(probe.score(seen(each), labels[truth])), 3)
        for name, (each, truth) in groups.items()
    }


if __name__ == "__main__":
    main()
