"""Mixers and what they are over: which adapters run inside one, and what it cannot mix is refused.

The frozen span runs once, whatever is mixed. So what the adapters in `over` do to its output is always mixed,
and what they do to its input only by a mixer with a `before` of its own. Keys and values, frames that are
added or left out and rows that are repeated belong to one run of the span: there is nothing to mix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ConfigError, did_you_mean
from ..adapter import Adapter, Mixer
from ..method import Mixing, Peer
from ..site import Site

if TYPE_CHECKING:
    from ..method import Method

Peers = Mapping[str, Adapter | Mixer]


@dataclass(frozen=True)
class Traits:
    """What an adapter does besides rewriting y, or what those do that a mixer is over."""

    changes_input: bool = False
    changes_attention: bool = False
    selects_frames: bool = False


def over(name: str, peers: Peers) -> tuple[str, ...]:
    """All that run inside a mixer, those inside its mixers included; nothing runs inside an adapter."""
    peer = peers[name]
    if isinstance(peer, Adapter):
        return ()
    return tuple(dict.fromkeys(inner for one in peer.over for inner in (one, *over(one, peers))))


def traits(name: str, peers: Peers) -> Traits:
    """What is true of an adapter, or of anything that a mixer is over."""
    parts = [part for n in (name, *over(name, peers)) if isinstance(part := peers[n], Adapter)]
    return Traits(
        any(part.changes_input for part in parts),
        any(part.changes_attention for part in parts),
        any(part.selects_frames for part in parts),
    )


def in_order(methods: Mapping[str, "Method"]) -> list[str]:
    """All adapters as they can be built: those that a mixer is over come before it.

    Raises ConfigError where one is not there, or where a mixer is over itself.
    """
    found: dict[str, None] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        method = methods[name]
        for one in method.over if isinstance(method, Mixing) else ():
            if one not in methods:
                raise ConfigError(
                    f"mixer {name!r} is over {one!r}, and no adapter is called so. "
                    f"{did_you_mean(one, methods)}"
                )
            if one in path:
                raise ConfigError(f"mixer {one!r} is over itself: {' over '.join((*path, one))}")
            add(one, (*path, one))
        found[name] = None

    for name in methods:
        add(name, (name,))
    return list(found)


def with_over(names: Sequence[str], methods: Mapping[str, "Method"]) -> list[str]:
    """These adapters and, before each mixer, those that it is over and that are not among them."""
    needed: set[str] = set()
    for name in reversed(in_order(methods)):
        if name in names or name in needed:
            method = methods[name]
            needed |= {name, *(method.over if isinstance(method, Mixing) else ())}
    missing = [name for name in in_order(methods) if name in needed and name not in names]
    return [*missing, *names]


def peers_of(
    name: str, mixing: Mixing, site: Site, there: Peers, methods: Mapping[str, "Method"]
) -> dict[str, Peer]:
    """What a mixer is built over at a site; raises ConfigError for one that does not sit there."""
    for one in mixing.over:
        if one not in there:
            raise _absent(name, one, site)
    return {one: Peer(methods[one], there[one]) for one in mixing.over}


def check_mixers(site: Site, peers: Peers, methods: Mapping[str, "Method"]) -> None:
    """Raise ConfigError, naming site and adapters, where what a mixer is over is not there or cannot mix."""
    for name, peer in peers.items():
        if isinstance(peer, Mixer):
            _check_peers(name, peer, site, peers, methods)
    for name, peer in peers.items():
        if isinstance(peer, Mixer):
            _check_means(name, peer, site, peers, methods)


def _check_peers(name: str, mixer: Mixer, site: Site, peers: Peers, methods: Mapping[str, "Method"]) -> None:
    here = f"{site.name}: mixer {name!r} is over"
    if not mixer.over:
        raise ConfigError(f"{here} no adapter; name those that it mixes")
    for one in mixer.over:
        if one not in methods:
            raise ConfigError(f"{here} {one!r}, and no adapter is called so. {did_you_mean(one, methods)}")
        if one not in peers:
            raise _absent(name, one, site)
    _check_no_circle((name,), peers)


def _absent(name: str, one: str, site: Site) -> ConfigError:
    return ConfigError(
        f"{site.name}: mixer {name!r} is over {one!r}, which does not sit there. Choose sites for {name!r} "
        f"where every adapter sits that it is over, or let {one!r} sit there too"
    )


def _check_no_circle(path: Sequence[str], peers: Peers) -> None:
    peer = peers.get(path[-1])
    for one in peer.over if isinstance(peer, Mixer) else ():
        if one in path:
            raise ConfigError(f"mixer {one!r} is over itself: {' over '.join((*path, one))}")
        _check_no_circle((*path, one), peers)


def _check_means(name: str, mixer: Mixer, site: Site, peers: Peers, methods: Mapping[str, "Method"]) -> None:
    """What has no meaning under this mixer, though all of it sits here."""
    for one in over(name, peers):
        part, what = peers[one], ""
        if not isinstance(part, Adapter):
            continue
        if not methods[one].keeps_length:
            what = "changes the number of frames"
        elif not methods[one].keeps_batch:
            what = "runs the batch several times over"
        elif part.selects_frames:
            what = "chooses the frames that the frozen modules work on"
        elif part.changes_attention:
            what = "gives the attention keys and values"
        elif part.changes_input and not mixer.mixes_input:
            what = "changes what enters the frozen modules, and this mixer mixes outputs alone"
        if what:
            raise ConfigError(
                f"{site.name}: mixer {name!r} is over {one!r}, a {methods[one].name}, which {what}; the "
                "frozen modules run once, so this cannot be mixed. Leave it out of the mixer, and activate "
                "it beside"
            )
