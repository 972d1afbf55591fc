"""Options by name, as Python gives them, laid over those that there are; what is misspelt is told."""

from dataclasses import fields, replace
from typing import Any, TypeVar

from ..errors import ConfigError, did_you_mean

T = TypeVar("T")


def asked(options: T, more: dict[str, Any], of: str) -> T:
    """A dataclass of options with those of `more` in place; raises ConfigError, naming the nearest, for one
    that it has not. `of` is whose options they are."""
    known = [one.name for one in fields(options)]  # type: ignore[arg-type]
    for name in more:
        if name not in known:
            raise ConfigError(f"{name}: {of} has no option {name!r}. {did_you_mean(name, known)}")
    return replace(options, **more)  # type: ignore[type-var]
