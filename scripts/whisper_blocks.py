"""The blocks of Whisper's encoder at a published size, with random weights: what costs are measured on.

What a block costs depends on its width and on how many frames pass, not on what its weights are.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speech_peft.backbones.base import Stack
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
            if not any(tensor.untyped_storage().data_ptr() == own for own in parameters):
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        parameters = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        self.model.trainable(*names)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            self.run(*names).sum()
        return sum(kept.values())


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds until it is done, on a GPU as well."""
    wait = torch.cuda.synchronize if device.type == "cuda" else nullcontext
    wait()
    began = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - began
