"""A model explains itself: which adapters sit where, what trains, what it costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from .adapter import Adapter, Mixer
from .method import Method
from .site import Site


@runtime_checkable
class Described(Protocol):
    """What is read of an AdaptedModel."""

    base: nn.Module

    @property
    def methods(self) -> Mapping[str, Method]: ...
    @property
    def sites(self) -> Mapping[str, Sequence[Site]]: ...
    @property
    def active(self) -> Sequence[str]: ...
    def at(self, name: str, site: Site) -> Adapter | Mixer: ...
    def parameters_of(self, name: str) -> Iterable[nn.Parameter]: ...


@dataclass(frozen=True)
class Row:
    """One adapter of a model."""

    adapter: str
    method: str
    sites: tuple[str, ...]
    parameters: int
    trainable: int
    active: bool
    """Whether it runs, by itself or inside a mixer that does."""


def count(parameters: Iterable[nn.Parameter]) -> int:
    """Numbers held by these parameters, each parameter once."""
    return sum({id(p): p.numel() for p in parameters}.values())


def rows(model: Described) -> list[Row]:
    """One row per adapter."""
    parts = [model.at(name, site) for name in model.active for site in model.sites[name]]
    mixed = {name for part in parts if isinstance(part, Mixer) for name in part.over}
    return [
        Row(
            adapter=name,
            method=method.name,
            sites=tuple(site.name for site in model.sites[name]),
            parameters=count(model.parameters_of(name)),
            trainable=count(p for p in model.parameters_of(name) if p.requires_grad),
            active=name in {*model.active, *mixed},
        )
        for name, method in model.methods.items()
    ]


def describe(model: Described) -> str:
    """A plain-text table, one line per adapter and one for the frozen base."""
    base = count(model.base.parameters())
    lines = [f"{type(model.base).__name__}: {base:,} parameters, frozen"]
    for row in rows(model):
        state = "active" if row.active else "idle"
        share = 100 * row.trainable / (base + row.parameters)
        span = f" ({row.sites[0]} … {row.sites[-1]})" if row.sites else ""
        lines.append(
            f"  {row.adapter} ({row.method}, {state}): {len(row.sites)} sites{span}, "
            f"{row.parameters:,} parameters, "
            f"{row.trainable:,} trained = {share:.2f} % of all"
        )
    return "\n".join(lines)
