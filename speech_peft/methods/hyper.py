"""Adapters that a network writes, one for each language or task.

Hyper-Adapters (Baziotis et al. 2022, arXiv:2205.10835), Hyperformer and Hyperformer++ (Karimi Mahabadi et al.
2021, arXiv:2106.04489).

    y' = y + A(y; theta),      theta = H h,      h = f(v_name, v_layer, v_place)

No weight of an adapter is learned: it is made of three vectors, that of the language or task, that of the
block, and that of the place in it. So languages share what they have in common, layers too, and one more
language costs one more vector.

    hyper_adapter     A = U relu(D norm(y)),  f: residual blocks, and theta is divided by sqrt(hidden)
    hyperformer       A = norm(U gelu(D y + b_D) + b_U),  f: an MLP; each place has a network of its own
    hyperformer_pp    the same, and one network for all places

A network costs as many numbers as `hidden` adapters of one block, however many blocks and languages there
are: it pays where these are many more, and with few of them where `hidden` is small.

Division by sqrt(hidden) keeps what is made at one size, however wide the network is. As published neither
starts as the identity; here U, or gain and shift of the norm behind it, start at zero, unless `paper_start`.
An encoder and a decoder have networks of their own in Hyperformer, and one together in Hyper-Adapters.

The manifest names the language in its column `lang` (`key: task` reads `task`), and so do the commands. Clips
of several languages share a batch: each weight is made once for each language, and each row has its own. A
clip of which nothing is said gets the mean of all vectors. `speech-peft adapter materialise FOLDER --name cs`
writes the ordinary bottleneck of one language, `speech-peft adapter extend FOLDER --name pl` what learns
another one by its vector alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.keyed import functional
from ..core.keyed.keyed import Keyed, KeyedAdapter
from ..core.keyed.named import Named, rows_of
from ..core.method import Method
from ..core.site import Kind, Site, place_of
from ..errors import ConfigError
from ..registry import METHODS
from .bottleneck import Bottleneck

Flavour = Literal["hyper_adapter", "hyperformer", "hyperformer_pp"]
_HYPERFORMER: dict[str, Any] = {
    "sites": ("*.attn", "*.ffn"),
    "key": "task",
    "width": 24,
    "vector": 64,
    "hidden": 64,
}
FLAVOURS: dict[str, dict[str, Any]] = {
    "hyper_adapter": {"sites": ("*.block",), "key": "language", "width": 64, "vector": 32, "hidden": 256},
    "hyperformer": _HYPERFORMER,
    "hyperformer_pp": _HYPERFORMER,
}
_BLOCKS = 2
"""Residual blocks of a hyper-adapter's network."""
_INNER = 128
"""Inner width of a Hyperformer's MLP."""


@METHODS.register("hyper")
class Hyper(Keyed):
    """Bottlenecks that one network writes for every task or language, layer and place."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"block", "attn", "cross", "ffn", "conv"})

    flavour: Flavour = "hyper_adapter"
    width: PositiveInt = 64
    """Inner width of the adapters."""
    vector: PositiveInt = 32
    """Numbers of a name, of a layer and of a place."""
    hidden: PositiveInt = 256
    """Width of h."""
    paper_start: bool = False
    """Start with what is published, which is not the identity."""

    @model_validator(mode="before")
    @classmethod
    def _fill_flavour(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {**FLAVOURS.get(given.get("flavour", "hyper_adapter"), {}), **given}

    @property
    def identity_at_init(self) -> bool:
        return not self.paper_start

    def ordinary(self) -> Method:
        place: dict[str, Any] = {"sites": self.sites, "top": self.top, "width": self.width, "form": "series"}
        if self.flavour == "hyper_adapter":
            return Bottleneck(norm=True, bias=False, **place)
        return Bottleneck(norm_out=True, activation="gelu", **place)

    def shared(self, sites: Sequence[Site]) -> nn.Module:
        return _Networks(sites, self)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        assert isinstance(shared, _Networks)
        with torch.device("meta"):
            template = self.ordinary().build(site, target, None)
        assert isinstance(template, Adapter)
        return _Hyper(template, shared, shared.address(site), self)

    @classmethod
    def examples(cls) -> list[Method]:
        small: dict[str, Any] = {"names": ("cs", "nl"), "width": 3, "vector": 5, "hidden": 6}
        return [
            cls(**small),
            cls(**small, flavour="hyperformer", paper_start=True),
            cls(**small, flavour="hyperformer_pp", sites=("*.ffn",)),
        ]


class _Networks(nn.Module):
    """The vectors, and the networks of all sites."""

    def __init__(self, sites: Sequence[Site], settings: Hyper):
        super().__init__()
        self.settings = settings
        self.vectors = Named(torch.randn(len(settings.names), settings.vector), settings.fresh)
        groups: dict[str, list[Site]] = {}
        for site in sites:
            groups.setdefault(self._group(site), []).append(site)
        self.networks = nn.ModuleDict({name: _Network(group, settings) for name, group in groups.items()})

    def _group(self, site: Site) -> str:
        stack = (place_of(site) or ("", 0))[0].strip(".")
        if self.settings.flavour == "hyper_adapter":
            return "all"
        return (
            f"{stack or 'encoder'}_{_place(site)}"
            if self.settings.flavour == "hyperformer"
            else stack or "encoder"
        )

    def address(self, site: Site) -> tuple["_Network", int, int]:
        """The network of a site, and its numbers for the block and the place."""
        network = self.networks[self._group(site)]
        assert isinstance(network, _Network)
        return network, *network.numbers(site)

    def vector_of(self, ids: Int[Tensor, " k"]) -> Float[Tensor, "k v"]:
        every = self.vectors.every()
        return rows_of(every, ids, every.mean(0))


class _Network(nn.Module):
    """Writes the parameters of an adapter, of vectors of what it is for."""

    def __init__(self, sites: Sequence[Site], settings: Hyper):
        super().__init__()
        if len({site.dim_out for site in sites}) > 1:
            told = ", ".join(f"{site.name} {site.dim_out}" for site in sites)
            raise ConfigError(f"{sites[0].name}: one network writes for sites of one width, not for: {told}")
        self.blocks = list(dict.fromkeys(map(_block, sites)))
        self.places = list(dict.fromkeys(map(_place, sites)))
        self.layer = nn.Parameter(torch.randn(len(self.blocks), settings.vector))
        self.place = nn.Parameter(torch.randn(len(self.places), settings.vector))
        self.body = _BODIES[settings.flavour](settings)
        with torch.device("meta"):
            example = settings.ordinary().build(sites[0], nn.Identity(), None)
        self.heads = nn.ModuleDict(
            {name.replace(".", "/"): _Head(name, p.shape, settings) for name, p in example.named_parameters()}
        )

    def numbers(self, site: Site) -> tuple[int, int]:
        return self.blocks.index(_block(site)), self.places.index(_place(site))

    def forward(self, vectors: Float[Tensor, "k v"], block: int, place: int) -> dict[str, Tensor]:
        """By the name of a parameter, what it is for each of these."""
        about = torch.cat([self.layer[block], self.place[place]]).expand(len(vectors), -1)
        h = self.body(torch.cat([vectors, about], -1))
        return {name.replace("/", "."): head(h) for name, head in self.heads.items()}


class _Head(nn.Module):
    """Writes one parameter."""

    def __init__(self, name: str, shape: torch.Size, settings: Hyper):
        super().__init__()
        former = settings.flavour != "hyper_adapter"
        self.linear = nn.Linear(settings.hidden, math.prod(shape), bias=former)
        nn.init.normal_(self.linear.weight, std=0.01 if former else 0.02)
        if former:
            nn.init.zeros_(self.linear.bias)
        zero = ("norm_out.weight", "norm_out.bias") if former else ("up.weight",)
        if name.endswith(zero) and not settings.paper_start:
            nn.init.zeros_(self.linear.weight)
        self.shape, self.scale = shape, 1.0 if former else settings.hidden**-0.5
        self.around = 1.0 if name.endswith("norm.weight") else 0.0
        """A norm in front is written as what it has more than one."""

    def forward(self, h: Float[Tensor, "k h"]) -> Tensor:
        written = self.linear(h).to(self.linear.weight.dtype)  # autocast writes in half precision
        return self.around + self.scale * written.view(-1, *self.shape)


class _Residual(nn.Module):
    """h of a hyper-adapter."""

    def __init__(self, settings: Hyper):
        super().__init__()
        wide = 3 * settings.vector
        self.enter = nn.Linear(wide, settings.hidden)
        nn.init.normal_(self.enter.weight, std=wide**-0.5)  # vectors are of unit variance, and h too
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(settings.hidden),
                nn.Linear(settings.hidden, settings.hidden),
                nn.ReLU(),
                nn.Linear(settings.hidden, settings.hidden),
            )
            for _ in range(_BLOCKS)
        )

    def forward(self, vectors: Tensor) -> Tensor:
        h = self.enter(vectors)
        for block in self.blocks:
            h = h + block(h)
        return h


def _mlp(settings: Hyper) -> nn.Module:
    """h of a Hyperformer."""
    return nn.Sequential(
        nn.Linear(3 * settings.vector, _INNER),
        nn.ReLU(),
        nn.Linear(_INNER, settings.hidden),
        nn.LayerNorm(settings.hidden),
    )


_BODIES = {"hyper_adapter": _Residual, "hyperformer": _mlp, "hyperformer_pp": _mlp}


class _Hyper(KeyedAdapter):
    """Learns nothing itself: its parameters are written for each pass."""

    def __init__(
        self, template: Adapter, networks: _Networks, address: tuple[_Network, int, int], settings: Hyper
    ):
        super().__init__()
        # In tuples, since they belong to the model, and the template is not to be saved nor learned.
        self.lent, self.template = (networks, address[0]), (template.eval(),)
        self.where, self.settings = address[1:], settings
        self.maker = functional.Maker()

    @property
    def dtype(self) -> torch.dtype:
        return self.lent[1].layer.dtype

    def written(self, ids: Int[Tensor, " k"]) -> Mapping[str, Tensor]:
        """The parameters of the template for each id."""
        networks, network = self.lent
        return network(networks.vector_of(ids), *self.where)

    def forward(
        self, x: Float[Tensor, "b ... i"], y: Float[Tensor, "b ... o"], ctx: Context
    ) -> Float[Tensor, "b ... o"]:
        ids = self.settings.told(ctx)
        ids = torch.full(y.shape[:1], -1, device=y.device) if ids is None else ids
        made = self.maker.of(ids, self.written, self.lent[0].parameters(), ctx)
        return functional.run(self.template[0], made, x, y)

    def ordinary(self, id: int) -> dict[str, Tensor]:
        ids = torch.tensor([id], device=self.lent[1].layer.device)
        return {name: value[0] for name, value in self.written(ids).items()}


def _block(site: Site) -> str:
    stack, block = place_of(site) or ("", -1)
    return f"{stack}{block}"


def _place(site: Site) -> str:
    """What is behind the number of the block: attn, ffn."""
    stack, block = place_of(site) or ("", -1)
    return site.name.removeprefix(f"{stack}layers.{block}.").replace(".", "_")
