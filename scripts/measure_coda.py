#!/usr/bin/env python
"""What CoDA saves on long audio: operations and wall-clock against its dense twin, a parallel adapter.

    python scripts/measure_coda.py [--size tiny] [--seconds 30 120] [--ratios 3 5] [--rounds 5]

Blocks of Whisper's encoder at a published size, on states of so many seconds, all of them sound; features and
convolutions in front are not in it. Dense and conditional runs take turns on the same threads. Prints a JSON
line for each length, ratio and way to attend: `flops_ratio` is counted, `ratio` is the median over the rounds
of the dense run's time over that of the conditional one. Times mean something on an idle machine only.
"""

import argparse
import json
import platform
from statistics import median

import torch
from whisper_blocks import SIZES, Blocks

from speech_peft.core.method import Method
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.coda import Coda


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--seconds", type=float, nargs="+", default=[30.0, 120.0])
    parser.add_argument("--ratios", type=float, nargs="+", default=[3.0, 5.0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    methods = adapters(options.ratios, options.width)
    for seconds in options.seconds:
        blocks = Blocks.of(options.size, methods, options.clips, seconds, options.device)
        times = blocks.seconds([(name,) for name in methods], options.rounds)
        flops = [blocks.flops(name) for name in methods]
        for name, took, counted in list(zip(methods, times, flops, strict=True))[1:]:
            ratios = [dense / own for dense, own in zip(times[0], took, strict=True)]
            line = {
                "suite": "coda",
                "adapter": name,
                "size": options.size,
                "clips": options.clips,
                "audio_seconds": seconds,
                "flops_ratio": round(flops[0] / counted, 3),
                "ratio": round(median(ratios), 3),
                "ratio_best": round(max(ratios), 3),
                "ratio_worst": round(min(ratios), 3),
                "dense_gflops": round(flops[0] / 1e9, 2),
                "dense_seconds": round(median(times[0]), 4),
                "seconds": round(median(took), 4),
                "rounds": options.rounds,
                "device": options.device,
                "threads": options.threads,
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
            print(json.dumps(line), flush=True)


def adapters(ratios: list[float], width: int) -> dict[str, Method]:
    """The dense twin first, then each ratio in both ways to attend."""
    dense = Bottleneck(sites=("layers.*.block",), width=width, norm=True)
    found: dict[str, Method] = {"dense": dense}
    for ratio in ratios:
        for attend in ("k_to_k", "k_to_all"):
            found[f"{attend}, n/k = {ratio:g}"] = Coda(ratio=ratio, attend=attend, width=width)
    return found


if __name__ == "__main__":
    main()
