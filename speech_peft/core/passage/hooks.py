"""The only code that hooks a frozen model, and takes the hooks off again."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ...errors import ConfigError
from ..attention import attentions, route, unroute
from ..current import Current, forget, tell
from ..site import NESTING, Site, resolve
from .ear import Ear
from .port import Port, Room
from .recompute import Recompute


def attach(base: nn.Module, ports: Sequence[Port], current: Current, sites: Sequence[Site] = ()) -> None:
    """Hook every port onto the base: outermost sites enter first and leave last.

    Of all the `sites`, those of blocks that are told about their frames get ears.
    Of one kind, only spans of blocks share a module; those that begin lower come first in `ports`. Raises
    ConfigError where the base has ports already.
    """
    check_free(base)
    tell(base, current)
    ports = sorted(ports, key=lambda port: NESTING.index(port.site.kind))
    around = [port for port in ports if port.site.kind in ("stack", "block")]
    inside = ports[len(around) :]
    rooms = {path: Room(current) for port in ports for path in _rooms(base, port)}
    ears = {site.entry: Ear(site, current) for site in sites if site.told is not None}
    for path, ear in ears.items():
        resolve(base, path).register_forward_pre_hook(ear.enter, with_kwargs=True)
    _enter(base, around)
    for path, room in rooms.items():
        resolve(base, path).register_forward_pre_hook(room.enter)
    _enter(base, inside)
    _leave(base, inside)
    for path, room in rooms.items():
        resolve(base, path).register_forward_hook(room.leave, always_call=True)
    _leave(base, around)
    for path, ear in ears.items():
        resolve(base, path).register_forward_hook(ear.leave, always_call=True)


def _enter(base: nn.Module, ports: Sequence[Port]) -> None:
    for port in ports:
        entry = resolve(base, port.site.entry)
        if any(traits.changes_attention for traits in port.traits.values()):
            port.attentions = (entry,)
        if any(traits.selects_frames for traits in port.traits.values()):
            _open_to_selection(port, base)
        for module in port.attentions:
            route(module, port.site)
        entry.register_forward_pre_hook(port.enter, with_kwargs=True)


def _leave(base: nn.Module, ports: Sequence[Port]) -> None:
    for port in reversed(ports):
        resolve(base, port.site.exit).register_forward_hook(port.leave, always_call=True)


def detach(base: nn.Module) -> None:
    """Take off all that an AdaptedModel put onto `base`, which makes it the stock module again."""
    forget(base)
    for module in base.modules():
        for key, hooks in list(_ours(module)):
            del hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
            module._forward_hooks_always_called.pop(key, None)
        unroute(module)
        if isinstance(module.__dict__.get("forward"), Recompute):
            del module.__dict__["forward"]


def check_free(base: nn.Module) -> None:
    """Raise ConfigError where an AdaptedModel sits on `base`, or on a part of it: both would run."""
    owners = [hooks[key].__self__ for module in base.modules() for key, hooks in _ours(module)]
    if ports := [owner for owner in owners if isinstance(owner, Port)]:
        names = sorted({name for port in ports for name in port.peers})
        raise ConfigError(
            f"this {type(base).__name__} carries adapters of another AdaptedModel already, "
            f"{', '.join(map(repr, names))}, and both would run. Call detach() "
            "on that model first, or give a deepcopy of the base from before; "
            "speech_peft.core.passage.hooks.detach(base) frees a base whose model is gone"
        )


def _ours(module: nn.Module) -> Iterator[tuple[int, dict[int, Any]]]:
    """Our hooks on a module: their key, and the dictionary that holds them."""
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in hooks.items():
            if isinstance(getattr(hook, "__self__", None), (Port, Room, Ear)):
                yield key, hooks


def _rooms(base: nn.Module, port: Port) -> list[str]:
    """Paths of the base itself, and of the innermost module that is run and holds a span's two ends."""
    entry, end = port.site.entry.split("."), port.site.exit.split(".")
    shared = [a for i, a in enumerate(entry) if entry[: i + 1] == end[: i + 1]]
    while shared and not _is_run(resolve(base, ".".join(shared))):
        shared.pop()
    return ["", *([".".join(shared)] if port.site.entry != port.site.exit else [])]


def _is_run(module: nn.Module) -> bool:
    """Whether a module has a forward, which a mere list of blocks has not."""
    return type(module).forward is not nn.Module.forward


def _open_to_selection(port: Port, base: nn.Module) -> None:
    """A block's attention must take keys by keyword; a feed-forward sublayer has none."""
    if port.site.kind == "block":
        port.attentions = attentions(resolve(base, port.site.entry))
    port.keys = tuple(resolve(base, path) for path in port.site.keys)
