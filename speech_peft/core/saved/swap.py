"""A folder takes its place when it is complete; only an adapter folder of ours gives way to it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import ConfigError
from ...files import json_text
from ...files.atomic import temporary_folder_beside

WRITTEN = (
    "adapter.json",
    "adapter.safetensors",
    "head.safetensors",
    "base.safetensors",
    "recipe.yaml",
    "README.md",
)
"""What an adapter folder holds of ours; all else in it is its owner's and stays."""


def check_replaceable(folder: Path) -> None:
    """Raises ConfigError, naming it, where something stands that is no adapter folder."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink():
        found = f"is a link to {os.readlink(folder)}"
    elif not folder.is_dir():
        found = "is a file"
    elif not _is_adapter(folder):
        found = "is a folder without an adapter in it"
    else:
        return
    raise ConfigError(
        f"{folder} {found}, and an adapter would be written there. Nothing was touched: give the adapter "
        "another name or the run another `out`"
    )


@contextmanager
def complete(final: Path) -> Iterator[Path]:
    """A new folder to fill; it becomes `final` when the block ends well, and vanishes when not.

    Raises ConfigError where something else than an older adapter has that name.
    """
    check_replaceable(final)
    half = temporary_folder_beside(final)
    try:
        yield half
        _swap(half, final)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _swap(half: Path, final: Path) -> None:
    if not final.exists():
        os.replace(half, final)
        return
    for entry in final.iterdir():
        if entry.name not in WRITTEN:
            if entry.is_dir() and not entry.is_symlink():
                shutil.copytree(entry, half / entry.name, symlinks=True)
            else:
                shutil.copy2(entry, half / entry.name, follow_symlinks=False)
    old = temporary_folder_beside(final)  # empty, so it may be renamed over
    os.replace(final, old)
    os.replace(half, final)
    shutil.rmtree(old)


def _is_adapter(folder: Path) -> bool:
    """Whether its adapter.json is one, even of a later version; an empty folder has nothing to lose."""
    if not any(folder.iterdir()):
        return True
    try:
        card = json_text.read_object(folder / "adapter.json")
    except ConfigError:
        return False
    return {"method", "config", "backbone", "sites"} <= card.keys()
