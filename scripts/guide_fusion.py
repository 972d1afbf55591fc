#!/usr/bin/env python
"""A fusion that is told in training which adapter is right, over the adapters that measure_fusion.py trained.

    python scripts/guide_fusion.py -o runs/measure_fusion [--clips 300] [--steps 120] [--guide 0.5]

Training clips are written once in each of the four channels, with the channel in the manifest's column
`task`; the fusion learns from their texts and, by `guide`, from that column, and is told nothing when it
hears. Leaves guided/fuse there: `measure_fusion.py` then measures it beside the others, and
`explain_fusion.py --fusion guided/fuse` says whom it listens to.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

from measure_fusion import FOUR, in_channel

import speech_peft as sp
from speech_peft.audio import manifest
from speech_peft.recipe.config import tree_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_fusion"))
    parser.add_argument("--clips", type=int, default=300, help="In each channel.")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=40.0, help="Of speech in a step.")
    parser.add_argument("--guide", type=float, default=0.5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--value", default="full", help="As of `fusion`: none mixes what the adapters make.")
    options = parser.parse_args()
    out: Path = options.out
    rows = list(manifest.read(out / "train.jsonl"))
    chosen = random.Random(0).sample(rows, min(options.clips, len(rows)))
    told = [
        replace(row, id=f"{channel}/{row.id}", extra={**row.extra, "task": channel})
        for channel in FOUR
        for row in in_channel(channel, chosen, out / "told")
    ]
    manifest.write(out / "told.jsonl", told)
    recipe = tree_of("asr/fusion")
    adapters = recipe["stages"]["fusion"]["adapters"]
    four = {name: {"from": str(out / name / name)} for name in FOUR}
    sp.fit(
        {
            **{key: value for key, value in recipe.items() if key != "stages"},
            "out": str(out / "guided"),
            "adapters": {
                **four,
                "fuse": {**adapters["fuse"], "guide": options.guide, "value": options.value},
            },
            "train": ["fuse"],
            "optim": {"lr": options.lr, "warmup": 10},
            "trainer": {"max_steps": options.steps},
        },
        data={
            "train": str(out / "told.jsonl"),
            "valid": str(out / "told.jsonl"),
            "max_valid": 16,
            "seconds_per_batch": options.seconds,
        },
    )


if __name__ == "__main__":
    main()
