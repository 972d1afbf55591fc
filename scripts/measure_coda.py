#!/usr/bin/env python
"""What CoDA saves on long audio: operations and wall-clock against its dense twin, a parallel adapter.

    python scripts/measure_coda.py [--size tiny] [--seconds 30 120] [--ratios 3 5] [--rounds 5]

Blocks of Whisper's encoder at a published size, on states of so many seconds, all of them sound; features and
convolutions in front are not in it. Dense and conditional runs take turns on the same threads. Prints a JSON
line for each length, ratio and way to attend: `flops_ratio` is counted, `ratio` is the median over the rounds
of the dense run's time over that of the conditional one. Times mean something on an idle machine only.
"""

import torch
from whisper_blocks import Blocks, parser, tell

from speech_peft.core.method import Method
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.coda import Coda


def main() -> None:
    own = parser(__doc__, seconds=[30.0, 120.0], rounds=5)
    own.add_argument("--ratios", type=float, nargs="+", default=[3.0, 5.0])
    own.add_argument("--width", type=int, default=64)
    options = own.parse_args()
    torch.set_num_threads(options.threads)
    methods = adapters(options.ratios, options.width)
    for seconds in options.seconds:
        blocks = Blocks.of(options.size, methods, options.clips, seconds, options.device)
        dense, *costs = blocks.costs([(name,) for name in methods], options.rounds)
        for name, cost in zip(list(methods)[1:], costs, strict=True):
            figures = {
                "adapter": name,
                **cost.saves(dense),
                "dense_gflops": round(dense.flops / 1e9, 2),
                "dense_seconds": dense.seconds,
                "seconds": cost.seconds,
            }
            tell("coda", options, seconds, **figures)


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
