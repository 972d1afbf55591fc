"""What every step of a degradation is: what it may draw from, and what it says of what it drew."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from numpy.random import Generator
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ..io import Samples

Pool = Callable[[Generator], Samples]
"""Gives another utterance, chosen with the generator: the voices of babble."""


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"the low end comes first, got {list(span)}")
    return span


def positive(span: tuple[float, float]) -> tuple[float, float]:
    """The span; raises ValueError where it reaches 0."""
    if span[0] <= 0:
        raise ValueError(f"must be above 0, got {list(span)}")
    return span


Span = Annotated[  # [low, high], drawn from uniformly; one number is both ends
    tuple[float, float],
    BeforeValidator(lambda value: (value, value) if isinstance(value, int | float) else value),
    AfterValidator(_ordered),
]
Share = Annotated[float, Field(ge=0, le=1)]
Result = tuple[Samples, dict[str, Any]]  # the samples, and what was drawn


@dataclass(frozen=True)
class Scene:
    """What a step may draw from."""

    sample_rate: int
    generator: Generator
    pool: Pool | None
    stranger: Pool | None = None
    """Gives an utterance of another speaker."""

    def uniform(self, span: tuple[float, float]) -> float:
        return float(self.generator.uniform(*span))

    def choice(self, options: Sequence[Any]) -> Any:
        return options[int(self.generator.integers(len(options)))]


class Settings(BaseModel):
    """What every step has: it is applied with probability `p`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    p: Share = 1.0

    @property
    def stretch(self) -> tuple[float, float]:
        """How many times as long a recording comes out, at least and at most."""
        return 1.0, 1.0


class BaseStep(Settings, ABC):
    """One way of making a recording worse."""

    @abstractmethod
    def apply(self, x: Samples, scene: Scene) -> Result: ...
