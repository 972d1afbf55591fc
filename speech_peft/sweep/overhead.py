"""What a saved adapter adds to the time of an encoder: passes with it and without it, by turns."""

import time
from pathlib import Path
from statistics import median

import torch

from ..opening.loading import load

_SECONDS = 10.0


@torch.no_grad()
def overhead(adapter: Path, weights: str | Path | None = None, threads: int = 1, rounds: int = 41) -> float:
    """The median over the rounds of an adapted pass's time over that of the bare encoder, of 10 s of noise.

    Unmerged, on the CPU. Below 1 for an adapter that lets the encoder work less. Rounds are short and many: a
    pause of the machine falls into few of them.
    """
    opened = load(adapter, weights)
    backbone, before = opened.backbone, torch.get_num_threads()
    samples = round(min(_SECONDS, backbone.max_seconds or _SECONDS) * backbone.sample_rate)
    audio = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    features = backbone.prepare(audio, torch.tensor([samples]))

    def seconds(*names: str) -> float:
        began = time.perf_counter()
        with opened.model.using(*names):
            backbone.encode(features)
        return time.perf_counter() - began

    torch.set_num_threads(threads)
    try:
        # The first is to warm up; each comes first every other time, so that both meet the same load.
        ways = [((), opened.runs), (opened.runs, ())]
        spent = [{way: seconds(*way) for way in ways[turn % 2]} for turn in range(rounds + 1)][1:]
    finally:
        torch.set_num_threads(before)
    return median(taken[opened.runs] / taken[()] for taken in spent)
