"""A site: a named place in a frozen model where an adapter may read and write."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from ..errors import ConfigError, did_you_mean, nearest

Kind = Literal["stack", "block", "tail", "attn", "cross", "ffn", "conv", "linear", "norm"]

# Outermost first: the order in which ports on one module enter, and the reverse of that in which they leave.
NESTING: tuple[Kind, ...] = ("stack", "block", "tail", "attn", "cross", "ffn", "conv", "linear", "norm")


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
