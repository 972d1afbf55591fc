"""What every decoder from encoder states to sound has in common, and how a recipe names one.

    states (b, t, d), and perhaps the degraded waveform (b, s)  ->  waveform (b, n)

Each feature frame stands for `hop` = sample_rate / frame_rate samples of the output. A decoder's settings are
a frozen `DecoderConfig` in its own file, registered by name, as methods are; the same fields stand in the
recipe (`task.decoder`) and in adapter.json (`config()`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor, nn

from ..core.context import Context
from ..core.model import AdaptedModel
from ..core.site import Site
from ..errors import ConfigError
from ..registry import DECODERS
from . import inside


class DecoderConfig(BaseModel):
    """The settings of one decoder. Subclasses register themselves: `@DECODERS.register("istft")`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    """The registered name, set by the registry."""

    sample_rate: PositiveInt
    """Of the waveform that comes out, in Hz."""

    def build(self, dim: int, frame_rate: float) -> "WaveformDecoder":
        """A fresh decoder of states `dim` wide, `frame_rate` a second."""
        raise NotImplementedError


class WaveformDecoder(nn.Module, ABC):
    """Encoder states to a waveform at `sample_rate`, `hop` samples for each state."""

    name: ClassVar[str]
    needs_waveform: ClassVar[bool] = False
    """Whether the degraded waveform must be given: the decoder filters it and invents nothing."""
    iterative: ClassVar[bool] = False
    """Whether `steps` means anything: the waveform is refined so many times."""

    def __init__(self, settings: DecoderConfig, dim: int, frame_rate: float):
        super().__init__()
        self.settings, self.dim, self.frame_rate = settings, dim, frame_rate
        self.sample_rate = settings.sample_rate
        self._held: tuple[AdaptedModel, ...] = ()
        """In a tuple, as the model with adapters holds the decoder, and no module lies inside itself."""
        self.hop = round(self.sample_rate / frame_rate)
        if self.hop * frame_rate != self.sample_rate:
            raise ConfigError(
                f"decoder.sample_rate: {self.sample_rate} Hz is no whole number of samples for each of the "
                f"encoder's {frame_rate:g} frames a second; use a multiple of it, such as 16000 or 24000"
            )

    def config(self) -> dict[str, Any]:
        """What builds the same decoder again: `build_decoder(dim, frame_rate, **config)`."""
        own = {"name": self.name, **self.settings.model_dump(mode="json")}
        return own | ({"adapters": inside.config(self._adapted)} if self._adapted else {})

    # ---- adapters in the decoder ----------------------------------------------------------------------

    def sites(self) -> list[Site]:
        """Where adapters may sit in it; nowhere, unless a decoder says so."""
        return []

    def adapt(self, adapters: Mapping[str, Mapping[str, Any]]) -> None:
        """Put new adapters into it, by name, as a recipe writes them; from now on they alone learn.

        Raises ConfigError where it has some already, or one must not sit there.
        """
        if self._adapted is not None:
            raise ConfigError(
                f"decoder {self.name}: has adapters already ({', '.join(self._adapted.methods)})"
            )
        model = inside.adapted(self.name, self, self.sites(), adapters)
        self.adapters = nn.ModuleDict({"parts": model.adapters, "shared": model.shared})
        self._held = (model,)

    @property
    def _adapted(self) -> AdaptedModel | None:
        return self._held[0] if self._held else None

    @contextmanager
    def telling(self, known: Context) -> Iterator[None]:
        """Inside, adapters in the decoder know this."""
        if self._adapted is None:
            yield
            return
        with self._adapted.context(known):
            yield

    def samples(self, frames: int, degraded: Float[Tensor, "b s"] | None = None) -> int:
        """How many samples come out: `frames * hop`, and no more than the degraded waveform has."""
        return frames * self.hop if degraded is None else min(frames * self.hop, degraded.shape[-1])

    def forward(
        self,
        states: Float[Tensor, "b t d"],
        degraded: Float[Tensor, "b s"] | None = None,
        *,
        generator: torch.Generator | None = None,
        steps: int | None = None,
    ) -> Float[Tensor, "b n"]:
        """The waveform. `degraded` is at `sample_rate` and starts with the first frame.

        All randomness comes from `generator`; `steps` is for decoders that are `iterative`.
        """
        return self.estimates(states, degraded, generator=generator, steps=steps)[-1]

    def estimates(
        self,
        states: Float[Tensor, "b t d"],
        degraded: Float[Tensor, "b s"] | None = None,
        *,
        generator: torch.Generator | None = None,
        steps: int | None = None,
    ) -> list[Float[Tensor, "b n"]]:
        """The waveform after each step, best last; training averages its loss over them."""
        if states.shape[-1] != self.dim:
            raise ConfigError(
                f"decoder {self.name}: reads states {self.dim} wide, got {states.shape[-1]}; "
                "it was made for another encoder"
            )
        if self.needs_waveform and degraded is None:
            raise ConfigError(f"decoder {self.name}: filters the degraded waveform, which was not given")
        if steps is not None and not self.iterative:
            raise ConfigError(f"steps: decoder {self.name} makes its waveform at once; leave steps out")
        if steps is not None and steps < 1:
            raise ConfigError(f"steps: {steps} is less than one")
        length = self.samples(states.shape[1], degraded)
        made = self._estimates(states, degraded, generator, steps)
        return [waveform[..., :length] for waveform in made]

    def own_losses(self, states: Float[Tensor, "b t d"], clean: Float[Tensor, "b n"]) -> dict[str, Tensor]:
        """Losses of parts that must say something else than the waveform, to be added with weight 1."""
        return {}

    @abstractmethod
    def _estimates(
        self,
        states: Float[Tensor, "b t d"],
        degraded: Float[Tensor, "b s"] | None,
        generator: torch.Generator | None,
        steps: int | None,
    ) -> list[Float[Tensor, "b m"]]:
        """As `estimates`, of checked arguments, with at least the samples that are wanted."""


def build_decoder(
    dim: int,
    frame_rate: float,
    *,
    name: str,
    adapters: Mapping[str, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> WaveformDecoder:
    """A fresh decoder by its name and its settings, with the `adapters` that are to sit in it.

    Raises ConfigError for a name or a field that there is not, and for a rate that the frames do not divide.

    >>> build_decoder(512, 50.0, name="istft", sample_rate=24000).hop          # doctest: +SKIP
    480
    """
    try:
        settings: DecoderConfig = DECODERS[name](**fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"decoder.{field}: {first['msg']} (decoder {name})") from None
    decoder = settings.build(dim, frame_rate)
    if adapters:
        decoder.adapt(adapters)
    return decoder
