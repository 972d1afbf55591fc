"""The blocks of Whisper's encoder at a published size, with random weights: what costs are measured on.

What a block costs depends on its width and on how many frames pass, not on what its weights are. A script
names ways to run them, by the adapters at work, and gets of each the operations, counted, and the seconds of
some rounds.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speech_peft.backbones.stack import Stack
from speech_peft.backbones.whisper import STACKS
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel

FRAME_RATE = 50
SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12), "medium": (1024, 24, 16)}
"""Width, blocks and heads."""


@dataclass(frozen=True)
class Blocks:
    """The blocks, and the adapters of one name each that sit on them."""

    model: AdaptedModel
    states: Tensor

    @classmethod
    def of(
        cls, size: str, methods: dict[str, Method], clips: int, seconds: float, device: str = "cpu"
    ) -> "Blocks":
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        dim, depth, heads = SIZES[size]
        torch.manual_seed(0)
        shape = {"d_model": dim, "encoder_layers": depth, "encoder_attention_heads": heads}
        encoder = WhisperEncoder(WhisperConfig(encoder_ffn_dim=4 * dim, **shape))
        stack = Stack("layers", STACKS[0].rows, STACKS[0].free)
        model = AdaptedModel(encoder, stack.sites(encoder, depth, dim), methods).eval()
        states = torch.randn(clips, round(seconds * FRAME_RATE), dim)
        return cls(model.to(device), states.to(device))

    def run(self, *names: str) -> Tensor:
        """The states behind the last block, with these adapters at work."""
        states = self.states
        with self.model.using(*names):
            for block in self.model.base.layers:
                states = block(states, attention_mask=None)
        return states

    def costs(self, ways: Sequence[tuple[str, ...]], rounds: int) -> "list[Cost]":
        """What each way costs; the adapters of a way are named, and none is the bare encoder."""
        times = self.seconds(ways, rounds)
        return [Cost(self.flops(*way), took) for way, took in zip(ways, times, strict=True)]

    @torch.no_grad()
    def flops(self, *names: str) -> int:
        """Operations of one run, counted; the fused attention of a CPU would count as nothing."""
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.run(*names)
        return counter.get_total_flops()

    @torch.no_grad()
    def seconds(self, ways: Sequence[tuple[str, ...]], rounds: int) -> list[list[float]]:
        """Wall-clock of each way in each round; they take turns, so that all meet the same load."""
        found: list[list[float]] = [[] for _ in ways]
        for number in range(rounds + 1):  # the first is to warm up
            for way, times in zip(ways, found, strict=True):
                spent = timed(lambda way=way: self.run(*way), self.states.device)
                if number:
                    times.append(spent)
        return found

    def kept_bytes(self, *names: str) -> int:
        """What a training run keeps for its backward pass, each tensor once."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in parameters:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        parameters = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        self.model.trainable(*names)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            self.run(*names).sum()
        return sum(kept.values())


@dataclass(frozen=True)
class Cost:
    """Of one way to run the blocks."""

    flops: int
    rounds: Sequence[float]
    """Seconds of each."""

    @property
    def seconds(self) -> float:
        return round(median(self.rounds), 4)

    def beside(self, other: "Cost") -> dict[str, float]:
        """How many times as much as another: above 1 is dearer, and the best round is the lowest."""
        return self._ratios(other, min, max)

    def saves(self, other: "Cost") -> dict[str, float]:
        """How many times less than another: above 1 is cheaper, and the best round is the highest."""
        return other._ratios(self, max, min)

    def _ratios(
        self, other: "Cost", best: Callable[[list[float]], float], worst: Callable[[list[float]], float]
    ) -> dict[str, float]:
        """Of seconds round by round, for runs of one round have met the same load."""
        ratios = [own / its for own, its in zip(self.rounds, other.rounds, strict=True)]
        found = {"ratio": median(ratios), "ratio_best": best(ratios), "ratio_worst": worst(ratios)}
        return {
            name: round(value, 3)
            for name, value in ({"flops_ratio": self.flops / other.flops} | found).items()
        }


def parser(doc: str | None, seconds: Sequence[float], rounds: int) -> argparse.ArgumentParser:
    """The options that these measurements share, with defaults that end soon; a script adds its own."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--size", choices=SIZES, default="tiny")
    made.add_argument(
        "--seconds", type=float, nargs="+", default=list(seconds), help="Of audio in each clip."
    )
    made.add_argument("--clips", type=int, default=1)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    return made


def tell(suite: str, options: argparse.Namespace, audio_seconds: float, **figures: object) -> None:
    """A line of JSON: the figures, and with what options and on what they were measured."""
    line = {
        "suite": suite,
        "size": options.size,
        "clips": options.clips,
        "audio_seconds": audio_seconds,
        **figures,
        "rounds": options.rounds,
        "device": options.device,
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(line), flush=True)


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds until it is done, on a GPU as well."""
    wait = torch.cuda.synchronize if device.type == "cuda" else nullcontext
    wait()
    began = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - began
