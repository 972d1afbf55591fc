#!/usr/bin/env python
"""What P streams cost: operations, wall-clock and kept activations against the bare encoder.

    python scripts/measure_parscale.py [--size tiny] [--streams 1 2 4 8] [--top 2] [--seconds 10] [--rounds 3]

Blocks of Whisper's encoder at a published size, on states of so many seconds; features and convolutions in
front are not in it. The bare run and those of each P take turns on the same threads. Prints a JSON line for
each length and P: `flops_ratio` is counted, `ratio` is the median over the rounds of the time over that of
the bare run, `kept_mb` is what a training step keeps for its backward pass. Times mean something on an idle
machine only. The defaults take about 20 s of one core, a few minutes where others are at work; the length
that Whisper hears, `--seconds 30 --rounds 5`, takes many times that.
"""

import torch
from whisper_blocks import Blocks, parser, tell

from speech_peft.core.describe import count
from speech_peft.core.method import Method
from speech_peft.methods.parscale import ParScale


def main() -> None:
    own = parser(__doc__, seconds=[10.0], rounds=3)
    own.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    own.add_argument("--top", type=int, help="Streams in so many of the highest blocks only.")
    options = own.parse_args()
    torch.set_num_threads(options.threads)
    methods: dict[str, Method] = {str(p): ParScale(streams=p, top=options.top) for p in options.streams}
    for seconds in options.seconds:
        blocks = Blocks.of(options.size, methods, options.clips, seconds, options.device)
        bare, *costs = blocks.costs([(), *((name,) for name in methods)], options.rounds)
        for name, cost in zip(methods, costs, strict=True):
            figures = {
                "streams": int(name),
                "top": options.top,
                "parameters": count(blocks.model.parameters_of(name)),
                **cost.beside(bare),
                "bare_seconds": bare.seconds,
                "seconds": cost.seconds,
                "kept_mb": round(blocks.kept_bytes(name) / 1e6, 1),
            }
            tell("parscale", options, seconds, **figures)


if __name__ == "__main__":
    main()
