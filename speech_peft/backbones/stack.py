"""A table of sites, for a row of equal blocks: what most of a backbone is written as.

Row("ffn", "ffn", "{b}.fc1", "{b}.fc2")   the site layers.3.ffn, from model.encoder.layers.3.fc1 to ….3.fc2
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..core.site import Heads, Kind, Site, resolve
from ..errors import ConfigError
from .told import Told


class Row(NamedTuple):
    """One line of a site table; `{b}` stands for the path of a block."""

    name: str
    kind: Kind
    entry: str
    exit: str = ""
    """Same as `entry` when empty."""
    keys: tuple[str, ...] = ()
    """Of a block: the modules that make a frame entering it a key and a value, see `Site.keys`."""


@dataclass(frozen=True)
class Stack:
    """A row of equal blocks inside a model, and the sites that each of them has."""

    path: str
    """Of the ModuleList that holds the blocks: "model.encoder.layers"."""
    rows: Sequence[Row]
    free: frozenset[Kind] = frozenset()
    """Kinds of site where frames may be added: nothing outside the site depends on the length."""
    final_norm: str = ""
    prefix: str = ""
    """Put before each name: "decoder."."""
    causal: bool = False
    """Whether a frame must not see later ones."""
    front: tuple[tuple[str, str], ...] = ()
    """Convolutions before the first block: names of their sites, and their paths."""
    told: Told | None = None
    """What a block's arguments say about its frames."""
    patches: str = ""
    """What cuts a spectrogram into patches, where frames are a map of them; it knows how many bands."""

    def sites(self, root: nn.Module, depth: int, dim: int) -> list[Site]:
        """Every site of the first `depth` blocks; raises ConfigError when a row does not fit the model."""
        last = f"{self.path}.{depth - 1}"
        found = [_convolution(root, f"{self.prefix}front.{name}", path) for name, path in self.front]
        found += [self._site(root, dim, Row("stack", "stack", f"{self.path}.0", last), "", "")]
        for i in range(depth):
            if i:  # from this block to the last: what spans the upper blocks only
                row = Row("stack", "stack", f"{self.path}.{i}", last)
                found.append(self._site(root, dim, row, f"layers.{i}", ""))
            found += [self._site(root, dim, row, f"layers.{i}", f"{self.path}.{i}") for row in self.rows]
        if self.final_norm:
            found.append(self._site(root, dim, Row("norm", "norm", self.final_norm), "", ""))
        if self.patches:
            bands = self._bands(resolve(root, self.patches))
            found = [replace(site, bands=bands) for site in found]
        return found

    @staticmethod
    def _bands(patches: Any) -> int:
        return patches.get_shape(patches.config)[0]

    def without_final_norm(self) -> "Stack":
        """The same blocks, read before the norm that follows them."""
        return replace(self, final_norm="")

    def _site(self, root: nn.Module, dim: int, row: Row, block: str, path: str) -> Site:
        name = self.prefix + ".".join(part for part in (block, row.name) if part)
        entry, exit = row.entry.format(b=path), (row.exit or row.entry).format(b=path)
        _refuse_fused_attention(root, name, entry)
        dim_in = _width(resolve(root, entry), "in", dim)
        dim_out = _width(resolve(root, exit), "out", dim)
        if row.kind not in ("linear", "norm") and (dim_in, dim_out) != (dim, dim):
            raise ConfigError(
                f"site {name} ({entry} -> {exit}) is {dim_in} -> {dim_out} wide, and the stream "
                f"it belongs to is {dim}. The site table does not fit this model or release of transformers."
            )
        keys = tuple(key.format(b=path) for key in row.keys)
        for key in keys:
            resolve(root, key)
        fixed = row.kind not in self.free
        told = self.told if row.kind == "block" else None
        heads = self._heads(root, row, path) if row.kind in ("attn", "cross") else None
        return Site(name, row.kind, entry, exit, dim_in, dim_out, fixed, self.causal, keys, heads, told)

    def _heads(self, root: nn.Module, row: Row, path: str) -> Heads | None:
        """The projections of an attention, where the table has all four and they lie inside it."""
        module = resolve(root, entry := row.entry.format(b=path))
        size = getattr(module, "head_dim", getattr(module, "head_size", 0))
        inside = {one.name: one.entry.format(b=path) for one in self.rows}
        paths = [inside.get(f"{row.name}.{n}", "") for n in "qkvo"]
        if row.exit or not size or not all(one.startswith(f"{entry}.") for one in paths):
            return None
        return Heads(*(one.removeprefix(f"{entry}.") for one in paths), size=size)


def _convolution(root: nn.Module, name: str, path: str) -> Site:
    weight = resolve(root, path).weight
    if not isinstance(weight, Tensor) or weight.dim() < 3:
        raise ConfigError(f"site {name}: {path} is no convolution. The site table does not fit this model")
    return Site(name, "front", path, path, weight.shape[1], weight.shape[0], True)


def _width(module: nn.Module, side: str, dim: int) -> int:
    """Channels that go into or come out of a module; sublayers are as wide as the stream they work on."""
    if isinstance(module, nn.Linear):
        return module.in_features if side == "in" else module.out_features
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not linears:  # a norm: one gain per channel
        gain = getattr(module, "weight", None)
        return gain.numel() if isinstance(gain, Tensor) else dim
    widths = {part.in_features if side == "in" else part.out_features for part in linears}
    return dim if dim in widths else max(widths)


def _refuse_fused_attention(root: nn.Module, name: str, path: str) -> None:
    """nn.MultiheadAttention uses the weights of its linear layers without calling them: hooks never run."""
    parts = path.split(".")
    for i in range(1, len(parts)):
        if isinstance(resolve(root, ".".join(parts[:i])), nn.MultiheadAttention):
            raise ConfigError(
                f"site {name}: {path} lies inside an nn.MultiheadAttention, which never calls it, so "
                f"an adapter there would have no effect. Use the whole attention, {'.'.join(parts[:i])}."
            )
