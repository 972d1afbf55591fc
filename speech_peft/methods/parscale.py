"""ParScale: P streams of a frozen encoder, each with its own prefix (Chen et al. 2025, arXiv:2505.10475).

    h_p = f(x; P_K^p, P_V^p)
    w = (1 - eps) softmax(MLP([h_1; ...; h_P])) + eps / P,      y' = sum_p w_p h_p

Every clip is run P times through the blocks. Streams differ only by keys and values, trained and without a
position, before the attention's own in every block (as in `prefix`). Behind the last block an MLP,
Linear(P d -> h), SiLU, Linear(h -> P), weighs the streams of each frame. Smoothing keeps every weight at
eps / P or more, so each stream goes on learning. Weights are computed in float32 in any precision.

From the released code (QwenLM/ParScale): streams are outermost in the batch, prefixes have no position, and
eps is 0.01. It leaves prefixes uninitialised; streams that start alike stay alike, so here they start from a
normal distribution. Departures, for encoders of speech, which presets tell apart:

    speech      16 keys and a bottleneck, h = 64: the published sizes are 6.7 % of Whisper-small at P = 4
    published   48 keys and h = d

In both, streams are joined before the encoder's final norm, where the blocks end, and the MLP reads them
normalised, as the raw stream is loud in a few channels. It starts as the mean of the streams.

With `top`, streams part only at the lowest block with a prefix; all below runs once, and may come from the
prefix cache. A head that reads lower layers gets the mean of the streams there. Fewer streams may run than
were trained: `use_streams(model, "name", 2)` takes the first two, and one alone needs no weights. A decoder
reads the joined states and never knows.

Cost: an encoder reads all frames at once and is bound by arithmetic, so P streams cost P times the time and
the activations of the blocks that run them: give smaller batches, or trainer.recompute. The paper's cheap
streams are those of a decoder that writes one token at a time. On toy tasks no gain of P > 1 was seen: take
it for an ensemble in one file, and measure. Statistics and dropout of other adapters inside see P copies.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.attention import Pair
from ..core.context import Context
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.site import Kind, Site, span_from
from ..errors import ConfigError
from ..registry import METHODS

PRESETS: dict[str, dict[str, Any]] = {
    "speech": {"frames": 16, "hidden": 64},
    "published": {"frames": 48, "hidden": None},
}


@METHODS.register("parscale")
class ParScale(Method):
    """Parallel streams with their own prefixes, weighed frame by frame behind the last block."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"attn", "stack"})

    preset: Literal["speech", "published"] = "speech"
    sites: tuple[str, ...] = ("layers.*.attn",)
    """Where prefixes sit. The span from the lowest of their blocks to the last is added to them."""
    streams: PositiveInt = 4
    """P."""
    frames: PositiveInt = 16
    """Keys, and as many values, of each stream in each attention."""
    hidden: PositiveInt | None = 64
    """Inner width of the MLP; None is that of the encoder."""
    smoothing: float = Field(default=0.01, ge=0, le=1)
    """Share of the weights that is spread evenly, eps."""
    init_std: PositiveFloat = 0.02
    """Of the normal distribution that keys and values start from."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {**PRESETS.get(given.get("preset", "speech"), {}), **given}

    @property
    def identity_at_init(self) -> bool:
        return False

    @property
    def keeps_batch(self) -> bool:
        return self.streams == 1

    def choose(self, sites: Sequence[Site], base: nn.Module) -> list[Site]:
        chosen = super().choose(sites, base)
        prefixes = [site for site in chosen if site.kind != "stack"]
        if not prefixes:
            raise ConfigError(f"parscale: {chosen[0].name} has no keys. Choose attentions: layers.*.attn")
        if any(site.kind != "attn" for site in prefixes):
            return chosen  # refused by `check`, by its name
        span = span_from(sites, prefixes[0])
        return [site for site in sites if site == span or site in prefixes]

    def check(self, adapter: str, site: Site) -> None:
        super().check(adapter, site)
        if site.fixed_length:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} adds keys that have no position, and at {site.name} "
                "scores depend on relative positions, or a mask counts frames. Use bottleneck or lora there."
            )

    def shared(self, sites: Sequence[Site]) -> nn.Module:
        return _Used(self.streams)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        used = cast(_Used, shared)
        return _Prefixes(site, self, used) if site.kind == "attn" else _Streams(site.dim_out, self, used)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(streams=3, frames=2, hidden=4), cls(streams=2, frames=2, preset="published", top=1)]


def use_streams(model: AdaptedModel, name: str, streams: int) -> None:
    """Let adapter `name` run the first so many of its streams; ConfigError where it has not as many."""
    method = model.methods[name]
    if not isinstance(method, ParScale) or not 1 <= streams <= method.streams:
        has = (
            f"{method.streams} streams"
            if isinstance(method, ParScale)
            else f"no streams: it is a {method.name}"
        )
        raise ConfigError(f"adapter {name!r} has {has}; {streams} cannot run")
    cast(_Used, model.shared[name]).streams = streams


class _Used(nn.Module):
    """How many of the streams run; the parts at all sites read it here."""

    def __init__(self, streams: int):
        super().__init__()
        self.streams = streams


class _Prefixes(Adapter):
    """The streams' keys and values at one attention."""

    def __init__(self, site: Site, settings: ParScale, used: _Used):
        super().__init__()
        size = (settings.streams, settings.frames, site.dim_out)
        self.keys = nn.Parameter(torch.randn(size) * settings.init_std)
        self.values = nn.Parameter(torch.randn(size) * settings.init_std)
        self.used, self.site = used, site.name

    def added(self, x: Float[Tensor, "p*b t d"], ctx: Context) -> Pair:
        streams = self.used.streams
        if ctx.streams != streams:
            raise ConfigError(
                f"{self.site}: {streams} streams were expected here, and {ctx.streams} pass. Are two "
                "adapters with streams active together? Activate one of them"
            )
        keys, values = (
            kept[:streams].repeat_interleave(len(x) // streams, 0) for kept in (self.keys, self.values)
        )
        return keys, values

    def forward(
        self, x: Float[Tensor, "p*b t d"], y: Float[Tensor, "p*b t d"], ctx: Context
    ) -> Float[Tensor, "p*b t d"]:
        return y


class _Streams(Adapter):
    """Parts a batch into streams where a span of blocks begins, and joins them where it ends."""

    def __init__(self, dim: int, settings: ParScale, used: _Used):
        super().__init__()
        self.used, self.smoothing = used, settings.smoothing
        if settings.streams > 1:
            hidden, fan_in = settings.hidden or dim, settings.streams * dim
            # A matrix for each stream, so that fewer may run; they start as one Linear's would.
            self.read = nn.Parameter(torch.empty(settings.streams, hidden, dim).uniform_(-1, 1) / fan_in**0.5)
            self.shift = nn.Parameter(torch.zeros(hidden))
            self.write = nn.Parameter(torch.zeros(settings.streams, hidden))
            self.bias = nn.Parameter(torch.zeros(settings.streams))

    def before(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "p*b t d"]:
        return x.repeat(self.used.streams, 1, 1)

    def forward(
        self, x: Float[Tensor, "p*b t d"], y: Float[Tensor, "p*b t d"], ctx: Context
    ) -> Float[Tensor, "b t d"]:
        if self.used.streams == 1:
            return y
        streams = y.unflatten(0, (self.used.streams, -1))
        return (self.weights(streams)[..., None] * streams).sum(0)

    def weights(self, streams: Float[Tensor, "p b t d"]) -> Float[Tensor, "p b t"]:
        """How much each stream counts at each frame."""
        count = len(streams)
        with torch.autocast(streams.device.type, enabled=False):
            seen = F.layer_norm(streams.float(), streams.shape[-1:])
            read, write = self.read[:count].float(), self.write[:count].float()
            hidden = F.silu(torch.einsum("pbtd,phd->bth", seen, read) + self.shift)
            scores = torch.einsum("bth,ph->pbt", hidden, write) + self.bias[:count, None, None]
            return (1 - self.smoothing) * scores.softmax(0) + self.smoothing / count
