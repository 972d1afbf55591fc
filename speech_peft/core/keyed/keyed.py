"""A method whose adapter is another one for each task, or each language."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from jaxtyping import Int
from pydantic import NonNegativeInt, field_validator, model_validator
from torch import Tensor

from ...errors import ConfigError, did_you_mean
from ..adapter import Adapter
from ..context import Context
from ..method import Method
from ..passage.ids import UNKNOWN


class Keyed(Method, ABC):
    """What a clip is said to be, in a column of the manifest, decides what the adapter is for it.

    For one name it is an ordinary adapter, which `materialise` makes.
    """

    key: Literal["task", "language"] = "task"
    """The column that names it: `task`, or `lang`."""
    names: tuple[str, ...]
    """The tasks, or languages. Their order is part of it."""
    fresh: NonNegativeInt = 0
    """So many of the last names are learned, and all else stays: `speech-peft adapter extend` says so."""

    @field_validator("names")
    @classmethod
    def _each_once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} named twice; each has one place")
        if not given or not all(given):
            raise ValueError("expected a name for each task or language; got none")
        return given

    @model_validator(mode="after")
    def _some_are_known(self) -> Self:
        if self.fresh >= len(self.names) and self.fresh:
            raise ValueError(
                f"fresh: {self.fresh} of {len(self.names)} names; at least one was learned before"
            )
        return self

    @property
    def ids(self) -> Mapping[str, tuple[str, ...]]:
        return {self.key: self.names}

    def pace(self, parameter: str) -> float:
        own = parameter.rpartition(".")[2] == "fresh"
        return 0.0 if self.fresh and not own else super().pace(parameter)

    def told(self, ctx: Context) -> Int[Tensor, " b"] | None:
        """The ids of the clips of a pass; None where nobody said any."""
        return ctx.task if self.key == "task" else ctx.language

    def number(self, name: str | None) -> int:
        """The id of a name; that of an unknown one for None. Raises ConfigError for any other."""
        if name is None:
            return UNKNOWN
        if name not in self.names:
            raise ConfigError(f"{self.key}: {name!r} is none of its names. {did_you_mean(name, self.names)}")
        return self.names.index(name)

    def extended(self, more: Sequence[str]) -> Self:
        """The same with more names, which alone are learned."""
        fields: dict[str, Any] = {**self.model_dump(), "names": (*self.names, *more), "fresh": len(more)}
        return type(self)(**fields)

    @abstractmethod
    def ordinary(self) -> Method:
        """What its adapter is for one name."""


class KeyedAdapter(Adapter, ABC):
    """The part of such a method at one site."""

    @abstractmethod
    def ordinary(self, id: int) -> dict[str, Tensor]:
        """The state of the ordinary part for one name, by its id; -1 is a name that is not known."""
