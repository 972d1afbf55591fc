"""What stands for a model in a run's settings: the digest of everything that will be opened.

An address stays the same when an adapter is trained anew or weights are replaced; what it leads to does not.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import json_text


def of_adapter(address: str | Path, offline: bool = False) -> dict[str, Any]:
    """An adapter's tensors, card and heads, and those of all that run with it."""
    from ..core.saved.hub import locate

    try:
        folder = locate(address, offline=offline)
    except ConfigError:
        return {"unknown": str(address)}  # opening it says why
    card = _card(folder)
    together = card.get("together")
    others = together.values() if isinstance(together, dict) else ()
    return {
        "files": _files(folder),
        "together": [_companion(folder, str(other), offline) for other in others if other != "."],
    }


def of_file(path: str | Path) -> str:
    """What a recording holds."""
    return _digest([Path(path)])


def of_folder(folder: str | Path) -> dict[str, Any]:
    """All adapters in a folder, and what is said of them beside."""
    top = Path(folder)
    each = {str(path.parent): _files(path.parent) for path in sorted(top.rglob("adapter.json"))}
    return {"adapters": each, "beside": _digest([*top.glob("*.json"), *top.rglob("card.json")])}


def own_weights(address: str | Path, offline: bool = False) -> str | None:
    """The frozen model that an adapter's card names."""
    from ..core.saved.hub import locate

    try:
        backbone = _card(locate(address, offline=offline)).get("backbone")
    except ConfigError:
        return None
    return str(backbone["id"]) if isinstance(backbone, dict) and "id" in backbone else None


def of_weights(address: str | Path | None, offline: bool = False) -> dict[str, Any]:
    """Frozen weights and the settings beside them; what cannot be found counts by its address."""
    if address is None:
        return {}
    from ..backbones.checkpoints.weights import resolve_weights, weights_sha256

    try:
        folder = resolve_weights(address, offline=offline)
        files = [file for kind in ("*.json", "*.txt") for file in folder.glob(kind)]
        return {"weights": weights_sha256(folder), "files": _digest(files)}
    except (ConfigError, OSError):
        return {"unknown": str(address)}


def _companion(folder: Path, address: str, offline: bool) -> str:
    from ..core.saved.hub import locate

    try:
        local = address.startswith(".")
        where = (
            Path(os.path.normpath(folder.absolute() / address)) if local else locate(address, offline=offline)
        )
    except ConfigError:
        return address
    return _files(where)


def _card(folder: Path) -> dict[str, Any]:
    try:
        return json_text.read_object(folder / "adapter.json")
    except ConfigError:
        return {}  # reading it to use it says what is wrong


def _files(folder: Path) -> str:
    return _digest([*folder.glob("*.safetensors"), folder / "adapter.json"])


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.is_file():
            digest.update(f"\0{file.name}\0".encode("utf-8", "surrogateescape"))
            with open(file, "rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
