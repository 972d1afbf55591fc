"""Adapters that were trained together are opened together: the folder of each names the others."""

import os

from ..core.saved.hub import locate
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
    return {
        name: saved if address == "." else _companion(saved, name, address, offline)
        for name, address in together.items()
    }


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
