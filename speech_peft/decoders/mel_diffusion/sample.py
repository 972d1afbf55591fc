"""From pure noise to a spectrogram: DDIM with classifier-free guidance, several steps at a time if wanted."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ...core.sampling.step_parallel import StepParallelSampler
from ...errors import ConfigError
from .schedule import ddim, times

Predict = Callable[[Float[Tensor, "b t w"], float], Float[Tensor, "k b t w"]]
"""A noisy spectrogram and its time to v: once as told, and where guidance needs it once untold."""


@dataclass(frozen=True)
class Sampling:
    """How the steps are taken; raises ConfigError where that is not possible."""

    steps: int = 25
    guidance: float = 2.0
    """v = untold + guidance (told - untold); 1 is told alone, at half the cost."""
    degree: int = 1
    """Steps at a time, each from a prediction one cycle old (ParaStep)."""
    warmup: int = 5
    """Single steps before that."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.guidance < 0:
            raise ConfigError(
                f"sampling: steps={self.steps}, guidance={self.guidance:g}; expected at least one step and "
                "a guidance of at least 0"
            )

    @property
    def compares(self) -> bool:
        """Whether it needs to know what would come untold."""
        return self.guidance != 1


def sample(predict: Predict, noise: Float[Tensor, "b t w"], how: Sampling) -> Float[Tensor, "b t w"]:
    """The spectrogram that this noise becomes: the same each time."""
    at = times(how.steps)

    def step(state: Tensor, number: int, said: Tensor) -> Tensor:
        v = said[0] if len(said) == 1 else said[1] + how.guidance * (said[0] - said[1])
        return ddim(state, v, at[number], at[number + 1])

    # What is kept from cycle to cycle is what the network said, before guidance.
    sampler = StepParallelSampler(
        lambda state, number: predict(state, at[number]), step, how.steps, how.degree, how.warmup
    )
    return sampler(noise)
