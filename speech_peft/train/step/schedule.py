"""The learning rate of a step."""

import math

from ...recipe.parts import OptimConfig


def learning_rate(optim: OptimConfig, step: int, fraction: float) -> float:
    """Warm-up by steps, then the schedule over the fraction of the run."""
    warm = min(1.0, (step + 1) / optim.warmup) if optim.warmup else 1.0
    match optim.schedule:
        case "linear":
            fall = 1.0 - fraction
        case "cosine":
            fall = 0.5 * (1.0 + math.cos(math.pi * fraction))
        case "constant":
            fall = 1.0
    return optim.lr * warm * fall
