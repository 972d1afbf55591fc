"""A second attention beside a frozen one, that listens to something else: one delta, five switches.

    y' = y + s O' Attn(Q' x, K' z, V' z)

z is what it listens to; the frozen attention stays as it is. What the switches say:

    query   copy: the frozen projection and a change of it; frozen: shared; new: a projection of its own
    keys    PROJECTION:SOURCE. The same three words for keys and values, and what they are made of:
            reference   another recording, which went once through the frozen model (Context.reference)
            views       the same frame, give or take `window`, of all microphones (Context.views)
            tokens      a condition (Context.memory), as it is or as `tokens` projected ones
    out     zero: a projection of its own, zero at first; frozen: shared, and new values are zero at first
    window  views: how many frames sound may come earlier or later; all of them by default
    rank    of the changes and of `out: zero`; without it they are whole matrices, 2 d^2 and more a layer

    I2V-Adapter     copy, frozen:reference, zero    Guo et al. 2023, arXiv:2312.16693
    MV-Adapter      copy, copy:views, zero          Huang et al. 2024, arXiv:2412.03632
    FoleyCrafter    frozen, new:tokens, frozen      Zhang et al. 2024, arXiv:2407.01494, after IP-Adapter

A fresh one changes nothing, and neither does one with nothing to listen to. Low-rank changes are ours: the
papers train whole copies. Keys and values of a reference are made of its frozen states, so that it can be
kept for all batches of a speaker. Positions are those that the encoder has added: a reference begins at 0.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from jaxtyping import Bool, Float
from pydantic import BeforeValidator, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.listening.heads import Projection, as_frozen, attended, nearby
from ..core.method import Method
from ..core.site import Heads, Kind, Site, resolve
from ..errors import ConfigError
from ..registry import METHODS

Keys = Literal[
    "frozen:reference", "copy:reference", "new:reference", "copy:views", "frozen:views", "new:tokens"
]


@METHODS.register("attention")
class Attention(Method):
    """A parallel attention to a reference recording, to other microphones, or to a condition."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"attn", "cross"})

    sites: tuple[str, ...] = ("layers.*.attn",)
    query: Literal["copy", "frozen", "new"] = "copy"
    """The projection of queries: a copy that learns, the frozen one, or a new one."""
    keys: Annotated[Keys, BeforeValidator(lambda given: "copy:views" if given == "views" else given)] = (
        "frozen:reference"
    )
    """Projection and source of keys and values; `views` is `copy:views`."""
    out: Literal["zero", "frozen"] = "zero"
    """What the heads' outputs go through."""
    rank: PositiveInt | None = 32
    """Of what is learned of each projection; null for whole matrices."""
    window: NonNegativeInt | None = None
    """views: frames before and behind, for which sound from all microphones is looked at."""
    tokens: PositiveInt | None = None
    """tokens: how many a condition's mean is projected to; by default each of its entries is one."""
    dim: PositiveInt | None = None
    """tokens: width of the condition; by default that of the stream."""
    scale: PositiveFloat = 1.0
    """What it adds is multiplied by this."""

    @model_validator(mode="after")
    def _together(self) -> "Attention":
        if self.out == "frozen" and self.keys != "new:tokens":
            raise ValueError(f"out: with keys={self.keys} a frozen output would be heard at once; give zero")
        if self.window is not None and self.source != "views":
            raise ValueError(f"window: only views have one, and keys is {self.keys}")
        if self.source != "tokens" and (self.tokens or self.dim):
            raise ValueError(f"tokens, dim: only for keys=new:tokens, and keys is {self.keys}")
        return self

    @property
    def source(self) -> str:
        """What it listens to: reference, views or tokens."""
        return self.keys.partition(":")[2]

    @property
    def hears(self) -> frozenset[str]:
        return frozenset({"memory" if self.source == "tokens" else self.source})

    @property
    def sees_neighbours(self) -> bool:
        return self.source == "views"

    def check(self, adapter: str, site: Site) -> None:
        super().check(adapter, site)
        if site.kind == "cross" and self.source != "tokens":
            raise ConfigError(
                f"adapter {adapter!r}: at {site.name} frames ask a condition, and {self.keys} is asked by "
                'frames that ask each other. Give sites: ["layers.*.attn"], or keys: new:tokens'
            )
        if site.heads is None:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} is made of the four projections of an attention, and "
                f"those of {site.name} do not lie side by side in it. Choose another backbone: whisper, "
                "ast, mel_diffusion"
            )

    def shared(self, sites: Sequence[Site]) -> nn.Module | None:
        if self.tokens is None:
            return None
        dim = self.dim or sites[0].dim_in
        return _Tokens(dim, self.tokens)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        assert site.heads is not None
        kind = {"reference": _ToReference, "views": _ToViews, "tokens": _ToTokens}[self.source]
        return kind(site, site.heads, target, shared, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [
            cls(rank=4),
            cls(query="new", keys="copy:reference", rank=None, scale=0.5),
            cls(keys="copy:views", rank=4, window=1),
            cls(query="frozen", keys="new:tokens", out="frozen"),
            cls(keys="new:tokens", rank=4, tokens=2),
        ]


class _Attention(Adapter):
    """The projections; subclasses say what is listened to."""

    def __init__(
        self, site: Site, heads: Heads, target: nn.Module, shared: nn.Module | None, settings: Attention
    ):
        super().__init__()
        self.site, self.size, self.scale, self.window = site.name, heads.size, settings.scale, settings.window
        projections = [resolve(target, path) for path in (heads.q, heads.k, heads.v, heads.o)]
        # In a tuple, so that what is frozen is no part of the adapter.
        self.frozen: tuple[nn.Linear, ...] = tuple(projections)  # type: ignore[arg-type]
        inner, rank = self.frozen[0].out_features, settings.rank
        kind = settings.keys.partition(":")[0]
        dim = (settings.dim or site.dim_in) if settings.source == "tokens" else site.dim_in
        self.query = None if settings.query == "frozen" else Projection(site.dim_in, inner, rank)
        self.key, self.value = (None if kind == "frozen" else Projection(dim, inner, rank) for _ in "kv")
        self.out = Projection(inner, site.dim_out, rank) if settings.out == "zero" else None
        self.bare = settings.query == "new", kind == "new"
        for learned in [self.query] * self.bare[0] + [self.key] * self.bare[1]:
            _start(learned)
        if self.bare[1] and self.out is not None:  # where values and output are zero, neither learns
            _start(self.value)
        self.shared: tuple[nn.Module, ...] = () if shared is None else (shared,)

    def q(self, x: Tensor) -> Tensor:
        return self._projected(x, self.query, self.frozen[0], self.bare[0])

    def kv(self, z: Tensor) -> tuple[Tensor, Tensor]:
        pairs = ((self.key, self.frozen[1]), (self.value, self.frozen[2]))
        k, v = (self._projected(z, learned, frozen, self.bare[1]) for learned, frozen in pairs)
        return k, v

    @staticmethod
    def _projected(x: Tensor, learned: Projection | None, frozen: nn.Linear, bare: bool) -> Tensor:
        if learned is None:
            return as_frozen(x, frozen)
        return learned(x, None if bare else frozen)

    def with_heard(self, y: Tensor, heard: Tensor) -> Tensor:
        """What the heads found, through the output."""
        if self.out is None:
            out = self.frozen[3].weight.to(heard.dtype)
            return y + self.scale * nn.functional.linear(heard, out)
        return y + self.scale * self.out(heard)


def _start(learned: Projection | None) -> None:
    if learned is not None:
        nn.init.normal_(learned.b, std=learned.b.shape[1] ** -0.5)


class _ToReference(_Attention):
    def forward(
        self, x: Float[Tensor, "b t d"], y: Float[Tensor, "b t d"], ctx: Context
    ) -> Float[Tensor, "b t d"]:
        if ctx.reference is None:
            return y
        states, rows = ctx.reference.at(self.site).to(x.dtype), len(x)
        k, v, mask = (ctx.reference.by_row(each, rows) for each in (*self.kv(states), ctx.reference.mask))
        return self.with_heard(y, attended(self.q(x), k, v, mask, self.size))


class _ToTokens(_Attention):
    def forward(
        self, x: Float[Tensor, "b t d"], y: Float[Tensor, "b t d"], ctx: Context
    ) -> Float[Tensor, "b t d"]:
        if ctx.memory is None:
            return y
        tokens = ctx.memory.to(x.dtype)
        for projector in self.shared:
            tokens = projector(tokens)
        return self.with_heard(y, attended(self.q(x), *self.kv(tokens), None, self.size))


class _ToViews(_Attention):
    """Rows of one recording follow each other; each hears itself too, unless nobody else heard anything."""

    def forward(
        self, x: Float[Tensor, "b t d"], y: Float[Tensor, "b t d"], ctx: Context
    ) -> Float[Tensor, "b t d"]:
        if ctx.views == 1:
            return y
        if len(x) % ctx.views:
            raise ConfigError(f"{self.site}: {len(x)} rows are no recordings of {ctx.views} channels each")
        q, k, v = (part.unflatten(0, (-1, ctx.views)) for part in (self.q(x), *self.kv(x)))
        sound = ctx.mask if ctx.sound is None else ctx.sound
        there: Bool[Tensor, "b n t"] | None = None if sound is None else sound.unflatten(0, (-1, ctx.views))
        if self.window is not None:
            heard = nearby(q, k, v, there, self.size, self.window)
        else:
            flat = None if there is None else there.flatten(1)
            heard = attended(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), flat, self.size)
            heard = heard.unflatten(1, (ctx.views, -1))
        if there is not None:  # a recording of which one microphone is left is as if there were no others
            heard = heard * (there.any(-1).sum(1) > 1)[:, None, None, None]
        return self.with_heard(y, heard.flatten(0, 1))


class _Tokens(nn.Module):
    """A condition's mean as several tokens, by a layer and a norm."""

    def __init__(self, dim: int, tokens: int):
        super().__init__()
        self.project, self.norm, self.tokens = nn.Linear(dim, tokens * dim), nn.LayerNorm(dim), tokens

    def forward(self, memory: Float[Tensor, "b m d"]) -> Float[Tensor, "b n d"]:
        return self.norm(self.project(memory.mean(1)).unflatten(-1, (self.tokens, -1)))
