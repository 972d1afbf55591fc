"""A site: a named place in a frozen model where an adapter may read and write."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn

from ..errors import ConfigError, did_you_mean, nearest
from .context import Context

Kind = Literal["stack", "block", "tail", "attn", "cross", "ffn", "conv", "linear", "norm", "front"]

# Outermost first: the order in which ports on one module enter, and the reverse of that in which they leave.
NESTING: tuple[Kind, ...] = (
    "stack",
    "block",
    "tail",
    "attn",
    "cross",
    "ffn",
    "conv",
    "linear",
    "norm",
    "front",
)

_IN_BLOCK = re.compile(r"(.*?)layers\.(\d+)\.")


@dataclass(frozen=True)
class Heads:
    """What an attention is made of: its projections, by their paths inside it, and the size of a head."""

    q: str
    k: str
    v: str
    o: str
    size: int


@dataclass(frozen=True)
class Site:
    """A span of a frozen model: what enters `entry` is x, what leaves `exit` is y."""

    name: str
    """Stable across releases of transformers and written into adapter files: `layers.3.ffn`."""
    kind: Kind
    entry: str
    """Path of the submodule whose input is x."""
    exit: str
    """Path of the submodule whose output is y; may equal `entry`."""
    dim_in: int
    dim_out: int
    fixed_length: bool = False
    """True where frames must not be added, dropped or moved."""
    causal: bool = False
    """True where a frame must not see later ones, as in a decoder that writes one token after the other."""
    keys: tuple[str, ...] = ()
    """Paths of the norm and the two projections that make a frame of x a key and a value of the attention
    inside, where nothing but that frame has a part in them; empty where something has, or it is no block."""
    heads: Heads | None = None
    """Of an attention from whose projections a method can make another one."""
    told: Callable[[tuple[Any, ...], Mapping[str, Any]], Context] | None = None
    """Of a block: what its arguments say about the frames that pass, for encoders that tell it."""
    bands: int | None = None
    """How many bands of frequency the frames lie in, all frames of one before those of the next; None where
    frequency is folded into the channels."""


def resolve(root: nn.Module, path: str) -> nn.Module:
    """The submodule at `path`; raises ConfigError naming the nearest paths that exist."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        paths = [name for name, _ in root.named_modules() if name]
        close = nearest(path, paths) or nearest(path, {p.rpartition(".")[2] for p in paths})
        raise ConfigError(
            f"{type(root).__name__} has no module {path!r}. Nearest: {', '.join(close) or 'none'}. "
            "The site table of this backbone does not fit this model or this release of transformers."
        ) from None


def select(sites: Iterable[Site], patterns: Sequence[str]) -> list[Site]:
    """The sites whose names match any of the globs, in model order; a glob with no match is an error."""
    sites = list(sites)
    names = [site.name for site in sites]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"sites: no site matches {pattern!r}. {did_you_mean(pattern, names)}")
    return [site for site in sites if any(fnmatchcase(site.name, pattern) for pattern in patterns)]


def topmost(chosen: Sequence[Site], sites: Iterable[Site], top: int | float) -> list[Site]:
    """Those of the chosen sites that lie in the top blocks of their stack, or behind all blocks.

    `top` counts blocks (4), or is their share (0.25), rounded to at least one block. Raises ConfigError where
    a stack has fewer blocks, or where nothing is left.
    """
    depths: dict[str, int] = {}
    for stack, block in filter(None, map(place_of, sites)):
        depths[stack] = max(depths.get(stack, 0), block + 1)
    kept = [site for site in chosen if _is_on_top(site, depths, top)]
    if chosen and not kept:
        names = ", ".join(site.name for site in chosen[:3])
        raise ConfigError(f"top: none of the chosen sites lies in the top blocks ({top}): {names} …")
    return kept


def span_from(sites: Iterable[Site], start: Site) -> Site:
    """The site from the block of `start` to the last block of its stack.

    Raises ConfigError where `start` lies in no block, or where the last block is out of reach.
    """
    stack, block = place_of(start) or ("", -1)
    name = f"{stack}layers.{block}.stack" if block > 0 else f"{stack}stack"
    for site in sites:
        if site.name == name and block >= 0:
            return site
    raise ConfigError(
        f"{start.name}: no site spans the blocks from here to the last one, which a method that joins its "
        "streams behind it needs. Is the output of a lower block read? Read the last one"
    )


def _is_on_top(site: Site, depths: Mapping[str, int], top: int | float) -> bool:
    place = place_of(site)
    if place is None:
        # A front end and a stack begin with the lowest block; a final norm follows the highest.
        return site.kind not in ("stack", "front")
    depth = depths[place[0]]
    blocks = max(1, round(depth * top)) if isinstance(top, float) else top
    if blocks > depth:
        raise ConfigError(f"top: {top} blocks were asked for, and {site.name} lies in a stack of {depth}")
    return place[1] >= depth - blocks


def place_of(site: Site) -> tuple[str, int] | None:
    """The stack ("" for the encoder's, "decoder." for a decoder's) and the number of a site's block."""
    match = _IN_BLOCK.match(site.name)
    return (match[1], int(match[2])) if match else None
