"""A frozen model, its sites, and the named adapters attached to them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import torch
from torch import nn

from ..errors import ConfigError, did_you_mean
from .adapter import Adapter, Mixer
from .context import Context
from .current import Current
from .describe import describe
from .method import Method, Mixing
from .passage.hooks import attach, check_free, detach
from .passage.mixing import check_mixers, in_order, peers_of
from .passage.port import Port
from .passage.recompute import Recompute
from .rows import Rows
from .saved.room import Room
from .site import Site, resolve


class AdaptedModel(nn.Module):
    """Runs a frozen module with the active adapters at its sites.

    The base stays the stock object it was: same class, same keys, in eval mode, and calling it (or a
    submodule of it) directly runs the adapters too. `using()` with no name is the bare base, bit for bit.
    A model runs one forward at a time; give each thread a deepcopy. `detach()` takes the adapters off again,
    and so does the end of a `with` block.

    Raises ConfigError when a glob matches no site, a method must not sit at one, a mixer cannot mix what it
    is over, or the base carries another model's adapters.

    >>> model = AdaptedModel(encoder, sites, {"telephone": Lora(rank=8)})       # doctest: +SKIP
    >>> with model.using("telephone"): states = model(mel).last_hidden_state    # doctest: +SKIP
    """

    def __init__(
        self,
        base: nn.Module,
        sites: Sequence[Site],
        methods: Mapping[str, Method],
        rooms: Mapping[str, Room] | None = None,
    ):
        """`rooms` say of saved adapters how much their files can fill; more is not built."""
        super().__init__()
        check_free(base)
        self.base = base.requires_grad_(False).eval()
        self.methods = dict(methods)
        self.table = tuple(sites)
        """All sites of the base."""
        order = in_order(methods)
        self.sites: dict[str, list[Site]] = {name: [] for name in methods}  # in the order of `methods`
        for name in order:
            self.sites[name] = self._chosen(name, sites)
        self.blocks = [site.entry for site in sites if site.kind == "block"]
        self.adapters = nn.ModuleDict()
        self.shared = nn.ModuleDict()
        self.current = Current(active=tuple(methods))
        self.learning = tuple(methods)
        """The adapters that train; all others are frozen, and always in eval mode."""
        self.attached = True
        for name in order:
            with rooms[name].kept(base) if rooms and name in rooms else nullcontext():
                self._build(name, self.methods[name])
        self._all_sites = tuple(sites)
        self._hook()

    def _hook(self) -> None:
        occupied = {site.name for chosen in self.sites.values() for site in chosen}
        sites = [site for site in self._all_sites if site.name in occupied]
        for site in sites:
            check_mixers(site, self._peers(site), self.methods)
        ports = [Port(site, self._peers(site), self.methods, self.current) for site in sites]
        attach(self.base, ports, self.current, self._all_sites)

    def _chosen(self, name: str, sites: Sequence[Site]) -> list[Site]:
        method = self.methods[name]
        if isinstance(method, Mixing):
            return method.choose_over(name, sites, self.base, self.sites)
        return method.choose(sites, self.base)

    def _build(self, name: str, method: Method) -> None:
        """Parts are made on the CPU, from the same numbers on every machine, and moved to where they sit."""
        for site in self.sites[name]:
            method.check(name, site)
        places = [resolve(self.base, site.exit) for site in self.sites[name]]
        shared = method.shared(self.sites[name])
        if shared is not None:
            self.shared[name] = _moved(shared, places[0])
        parts = nn.ModuleDict()
        for site, target in zip(self.sites[name], places, strict=True):
            if isinstance(method, Mixing):
                peers = peers_of(name, method, site, self._peers(site), self.methods)
                part = method.build_over(site, target, shared, peers)
            else:
                part = method.build(site, target, shared)
            parts[key_of(site)] = _moved(part, target)
        self.adapters[name] = parts

    def _peers(self, site: Site) -> dict[str, Adapter | Mixer]:
        return {name: self.at(name, site) for name in self.adapters if site in self.sites[name]}

    def at(self, name: str, site: Site) -> Adapter | Mixer:
        """The part of adapter `name` that sits at `site`."""
        return cast("Adapter | Mixer", cast(nn.ModuleDict, self.adapters[name])[key_of(site)])

    def forward(self, *args: Any, ctx: Context | None = None, **kwargs: Any) -> Any:
        """Call the base with its own arguments; `ctx` is seen by every adapter during this call."""
        if not self.attached:
            raise ConfigError("this AdaptedModel was detached from its base; make another one")
        if ctx is None:
            return self.base(*args, **kwargs)
        with self.context(ctx):
            return self.base(*args, **kwargs)

    @property
    def active(self) -> tuple[str, ...]:
        """The adapters that run, in the order in which they are applied."""
        return self.current.active

    def activate(self, *names: str) -> None:
        """Let these adapters run, in this order, until told otherwise."""
        self._known(names)
        self.current.active = names

    @contextmanager
    def using(self, *names: str) -> Iterator["AdaptedModel"]:
        """Run only these adapters inside the block; `using()` is the bare base."""
        self._known(names)
        ctx = self.current.ctx
        with self.current.set(names, ctx if ctx.rows is None else replace(ctx, rows=None)):
            yield self

    @contextmanager
    def using_rows(self, *rows: str | Sequence[str] | None) -> Iterator["AdaptedModel"]:
        """Run for each row of the batch its own adapters, given by name, by several names, or None for none.

        In a batch of beams each clip has its rows beside each other. Low-rank adapters of all rows run as one
        product, others group by group. Raises ConfigError, naming it, for an adapter that cannot run for some
        rows and not for others.

        >>> with model.using_rows("czech", "dutch", None): model(mel)               # doctest: +SKIP
        """
        each = Rows(tuple((row,) if isinstance(row, str) else tuple(row or ()) for row in rows))
        for names in set(each.names):
            self._known(names)
        if each.alike:
            with self.using(*each.all):
                yield self
            return
        for name in each.all:
            self._check_by_row(name)
        with self.current.set(each.all, replace(self.current.ctx, rows=each)):
            yield self

    def _check_by_row(self, name: str) -> None:
        method, parts = self.methods[name], [self.at(name, site) for site in self.sites[name]]
        adapters = [part for part in parts if isinstance(part, Adapter)]
        reasons = {
            "changes the number of frames": not method.keeps_length,
            "runs the batch several times over": not method.keeps_batch,
            "chooses the frames that the frozen modules work on": any(a.selects_frames for a in adapters),
            "lets the channels of a recording hear each other": "views" in method.hears,
            "gives the attention keys and values": any(a.changes_attention for a in adapters),
        }
        for why in (why for why, holds in reasons.items() if holds):
            raise ConfigError(
                f"{self.sites[name][0].name}: adapter {name!r}, a {method.name}, {why}, so it runs for all "
                "rows of a batch or for none. Give its clips a batch of their own"
            )

    @contextmanager
    def context(self, ctx: Context) -> Iterator["AdaptedModel"]:
        """Let every forward inside the block, of the base or any of its submodules, see `ctx`."""
        with self.current.set(self.current.active, ctx):
            yield self

    def trainable(self, *names: str) -> list[nn.Parameter]:
        """Let exactly these adapters be trained; returns their parameters.

        All others are frozen as the base is: parameters, statistics, and dropout.
        """
        self._known(names)
        self.learning = names
        for name in self.adapters:
            for key, parameter in self._named(name):
                parameter.requires_grad_(name in names and self.methods[name].pace(key) > 0)
        self.train(self.training)
        return [p for name in names for p in self.parameters_of(name) if p.requires_grad]

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """All parameters of one adapter, those of its shared network included."""
        self._known((name,))
        return [p for part in self._parts(name) for p in part.parameters()]

    def paces_of(self, name: str) -> dict[nn.Parameter, float]:
        """How many times the rate of a recipe each parameter of one adapter learns at."""
        return {parameter: self.methods[name].pace(key) for key, parameter in self._named(name)}

    def _named(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        return chain.from_iterable(part.named_parameters() for part in self._parts(name))

    def _parts(self, name: str) -> list[nn.Module]:
        return [self.adapters[name], *([self.shared[name]] if name in self.shared else [])]

    def recompute(self) -> None:
        """Trade time for memory: blocks keep no activations and run again in the backward pass."""
        for path in self.blocks:
            block = resolve(self.base, path)
            if not isinstance(block.forward, Recompute):
                block.forward = Recompute(block.forward, self.current)

    def train(self, mode: bool = True) -> "AdaptedModel":
        """Switch the adapters that train; the rest stays in eval mode, dropout and statistics included."""
        super().train(mode)
        self.base.eval()
        for name in self.adapters:
            if name not in self.learning:
                for part in self._parts(name):
                    part.eval()
        return self

    def detach(self) -> nn.Module:
        """The base as the stock module it was: no hook, nothing rewired, no adapter. It stays in eval mode.

        The adapters stay here, with what they have learned, and `at` and `state_dict` still give them.
        """
        if self.attached:
            detach(self.base)
            self.attached = False
        return self.base

    def reattach(self) -> None:
        """Undo `detach`. Raises ConfigError where the base carries another model's adapters by now."""
        if not self.attached:
            self._hook()
            self.attached = True

    def add(self, name: str, method: Method) -> None:
        """One more adapter beside those that are there; it is frozen, and runs where it is named.

        Raises ConfigError, and leaves everything as it was, where it must not sit or the name is taken.
        """
        if name in self.methods:
            raise ConfigError(f"there is an adapter {name!r} already")
        self.methods[name] = method
        try:
            self.sites[name] = self._chosen(name, self._all_sites)
            self._build(name, method)
        except ConfigError:
            del self.methods[name]
            self.sites.pop(name, None)
            raise
        self.adapters[name].requires_grad_(False).eval()
        self.detach()
        self.reattach()

    def __enter__(self) -> "AdaptedModel":
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def describe(self) -> str:
        """A table of what sits where and what it costs."""
        return describe(self)

    def _known(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.adapters:
                raise ConfigError(f"no adapter is called {name!r}. {did_you_mean(name, self.adapters)}")
            if list(names).count(name) > 1:
                raise ConfigError(f"adapter {name!r} is named twice; each runs once")


def key_of(site: Site) -> str:
    """The site's name as a key of a ModuleDict, which allows no dots."""
    return site.name.replace(".", "/")


def _moved(part: nn.Module, target: nn.Module) -> nn.Module:
    """The part, where the numbers of a frozen module lie."""
    there = next((tensor.device for tensor in _tensors(target)), None)
    if there is not None and any(tensor.device != there for tensor in _tensors(part)):
        part.to(there)
    return part


def _tensors(part: nn.Module) -> Iterator[torch.Tensor]:
    return chain(part.parameters(), part.buffers())
