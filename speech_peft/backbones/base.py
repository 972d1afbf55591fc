"""What every backbone gives: features, states block by block, and sites read from its own modules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.context import Context
from ..core.current import hearing
from ..core.saved.save import BackboneCard
from ..core.site import Site, resolve
from ..errors import ConfigError, SpeechPeftError
from .checkpoints.weights import Origin
from .frames import below, from_outside
from .stack import Stack


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
    model_types: ClassVar[tuple[str, ...]] = ()
    """How the config.json of its checkpoints may begin to name it."""
    holders: ClassVar[Mapping[str, str]] = {}
    """Stock classes that hold its stacks, and where each lies in `module`."""
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

    @classmethod
    def kinds(cls) -> "Sequence[type[Backbone]]":
        """The kinds of encoder that the family opens, each with a table of its own."""
        return (cls,)

    @classmethod
    def table(cls) -> Sequence[Stack]:
        """The stacks of a whole model, every block and what follows them."""
        return cls.stacks

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
        if site.name == "stack" or site.kind == "front":
            return 0
        head, _, rest = site.name.partition(".")
        if head == "layers":
            return int(rest.partition(".")[0])
        return None if any(s.prefix and site.name.startswith(s.prefix) for s in self.stacks) else self.depth

    @property
    def native_seconds(self) -> float | None:
        """The length that the encoder was trained at; None when there is none."""
        return self.max_seconds

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

    def encode(self, features: Features, ctx: Context | None = None) -> Encoded:
        """What the stock forward gives, bit by bit, with the adapters that are active.

        They are told what `ctx` says too, where nobody has said it yet.
        """
        if ctx is not None:
            with hearing(self.module, ctx):
                return self.encode(features)
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
                states = self._through(range(block, block + 1), states, features)
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
        with hearing(self.module, self._known(features, states)):
            return self._through(blocks, states, features)

    def _through(self, blocks: range, states: Tensor, features: Features) -> Tensor:
        """Part of a forward: a span of blocks that is entered here may be left in the next part."""
        side = self._side(features, states) if blocks else {}
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


def truncated(layer: int | None, total: int) -> int:
    """How many of `total` blocks to run when the output of block `layer` (counted from 1) is asked for."""
    if layer is not None and not 1 <= layer <= total:
        raise ConfigError(f"backbone.layer: {layer} is not one of this model's blocks, 1 to {total}")
    return layer or total
