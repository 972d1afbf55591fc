"""Adapters that were trained together are opened together: the folder of each names the others."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ..core.method import Method, Mixing
from ..core.saved.hub import locate
from ..core.saved.room import Room
from ..core.saved.save import Saved, read
from ..errors import ConfigError


def with_companions(saved: Saved, offline: bool = False) -> dict[str, Saved]:
    """All adapters that ran when this one was trained, by the names they had and in their order.

    It is among them, and alone where it was trained alone. Raises ConfigError naming the folder where one of
    them is not, or is of another training.
    """
    together = saved.manifest.together
    if not together:
        return {saved.folder.name: saved}
    found = {
        name: saved if address == "." else _companion(saved, name, address, offline)
        for name, address in together.items()
    }
    for name, digest in saved.manifest.experts.items():
        if name not in found or found[name].digest != digest:
            raise ConfigError(
                f"{saved.folder} was trained over {name!r} of sha256 {digest[:12]}…, and "
                + (
                    f"{found[name].folder} is another one. "
                    if name in found
                    else "it names no such adapter. "
                )
                + "Put back the one that it was trained over, or train it anew over this one"
            )
    return found


def as_called(saved: Saved, inside: Mapping[Path, str], offline: bool = False) -> Method:
    """Its method at its sites, where adapters have the names that `inside` gives to their folders."""
    if not isinstance(saved.method, Mixing):
        return saved.pinned
    others = {name: one.folder.resolve() for name, one in with_companions(saved, offline).items()}
    return saved.pinned.renamed({name: inside[folder] for name, folder in others.items() if folder in inside})


def named(group: Mapping[str, Saved], saved: Saved, address: str | Path) -> dict[str, Saved]:
    """The group by names inside one model: `saved` has that of its folder or repository, the others theirs.

    Where two would have one name, all are numbered.
    """
    own = _plain(Path(str(address)).absolute().name)
    names = {own if one is saved else _plain(name): one for name, one in group.items()}
    if len(names) < len(group):
        names = {f"adapter_{i}": one for i, one in enumerate(group.values())}
    return names


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name) or "adapter"


def called(saved: Mapping[str, Saved], offline: bool = False) -> tuple[dict[str, Method], dict[str, Room]]:
    """The methods of adapters that are called so inside one model, and the rooms that they take there."""
    inside = {one.folder.resolve(): name for name, one in saved.items()}
    methods = {name: as_called(one, inside, offline) for name, one in saved.items()}
    return methods, {name: one.room() for name, one in saved.items()}


def _companion(saved: Saved, name: str, address: str, offline: bool) -> Saved:
    local, of_this_run = address.startswith("."), address.startswith("../")
    where = os.path.normpath(saved.folder.absolute() / address) if local else address
    hint = (
        f"{saved.folder} was trained together with {name!r}, and without it does something else than it was "
        f'trained to do. Put it there too; to run this one alone, take "together" out of its adapter.json'
    )
    try:
        other = read(where if local else locate(where, offline=offline))
    except ConfigError as error:
        raise ConfigError(f"{error}. {hint}") from None
    if of_this_run and list(other.manifest.together) != list(saved.manifest.together):
        with_whom = ", ".join(other.manifest.together) or "no other"
        raise ConfigError(f"{other.folder} is of another training, with {with_whom}. {hint}")
    other.check_backbone(saved.backbone)
    return other
