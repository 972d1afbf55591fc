"""What a manifest says of a clip by name, and adapters are told by number."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ...errors import ConfigError, did_you_mean
from ..context import Context

if TYPE_CHECKING:
    from ..method import Method

UNKNOWN = -1
"""The id of a clip of which nothing is said."""


def context_of(
    methods: Iterable["Method"],
    columns: Mapping[str, Sequence[str | None]],
    device: torch.device | str = "cpu",
) -> Context:
    """The ids that these methods ask for, of clips whose names are given by Context field.

    Raises ConfigError for a name that a method does not know, and where two methods count differently.
    """
    found = {}
    for field, names in columns.items():
        tables = {method.ids[field] for method in methods if field in method.ids}
        if len(tables) > 1:
            raise ConfigError(
                f"{field}: adapters that run together count them differently: "
                + " and ".join(", ".join(table) for table in sorted(tables))
            )
        for table in tables:
            found[field] = torch.tensor([_number(field, name, table) for name in names], device=device)
    return Context(**found)


def _number(field: str, name: str | None, table: Sequence[str]) -> int:
    if not name:
        return UNKNOWN
    if name not in table:
        raise ConfigError(
            f"{field}: a clip is of {name!r}, which no adapter knows. {did_you_mean(name, table)}"
        )
    return table.index(name)
