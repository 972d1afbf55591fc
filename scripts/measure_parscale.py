#!/usr/bin/env python
"""What P streams cost: operations, wall-clock and kept activations against the bare encoder.

    python scripts/measure_parscale.py [--size tiny] [--streams 1 2 4 8] [--top 2] [--rounds 5]

Blocks of Whisper's encoder at a published size, on states of so many seconds; features and convolutions in
front are not in it. The bare run and those of each P take turns on the same threads. Prints a JSON line for
each P: `flops_ratio` is counted, `ratio` is the median over the rounds of the time over that of the bare run,
`kept_mb` is what a training step keeps for its backward pass. Times mean something on an idle machine only.
"""

import argparse
import json
import platform
from statistics import median

import torch
from whisper_blocks import SIZES, Blocks

from speech_peft.core.describe import count
from speech_peft.core.method import Method
from speech_peft.methods.parscale import ParScale


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--top", type=int, help="Streams in so many of the highest blocks only.")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    methods: dict[str, Method] = {str(p): ParScale(streams=p, top=options.top) for p in options.streams}
    blocks = Blocks.of(options.size, methods, options.clips, options.seconds, options.device)
    bare, *times = blocks.seconds([(), *((name,) for name in methods)], options.rounds)
    counted = blocks.flops()
    for name, took in zip(methods, times, strict=True):
        ratios = [own / without for without, own in zip(bare, took, strict=True)]
        line = {
            "suite": "parscale",
            "streams": int(name),
            "top": options.top,
            "size": options.size,
            "clips": options.clips,
            "audio_seconds": options.seconds,
            "parameters": count(blocks.model.parameters_of(name)),
            "flops_ratio": round(blocks.flops(name) / counted, 3),
            "ratio": round(median(ratios), 3),
            "ratio_best": round(min(ratios), 3),
            "ratio_worst": round(max(ratios), 3),
            "bare_seconds": round(median(bare), 4),
            "seconds": round(median(took), 4),
            "kept_mb": round(blocks.kept_bytes(name) / 1e6, 1),
            "rounds": options.rounds,
            "device": options.device,
            "threads": options.threads,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
