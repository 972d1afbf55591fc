"""Where an installed Python package lies, found without running a line of it.

An address in somebody's adapter names a package; `importlib.util.find_spec` would import what its dots lead
through, and a module of that name in the current directory before all others. The installer's own records say
the same and run nothing.
"""

import os
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ...files import json_text

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def package_root(name: str) -> Path | None:
    """The folder of the installed package `name`; None where no installed distribution brought it."""
    if not _NAME.fullmatch(name):
        return None
    where = _installed_paths()
    # Nearly always the distribution is called as its package is, which spares reading all records.
    named = distributions(name=name, path=where)
    for found in (*named, *distributions(path=where)):
        for root in (Path(str(found.locate_file(name))), *_editable(found, name)):
            if root.is_dir() and _brought(found, name):
                return root
    return None


def _installed_paths() -> list[str]:
    """Where packages are installed: the import path without the current directory, which anybody may fill."""
    here = os.path.realpath(os.curdir)
    return [path for path in sys.path if path and os.path.realpath(path) != here]


def _editable(distribution: Distribution, package: str) -> list[Path]:
    """Where a package lies that was installed with `pip install -e`: in its own project."""
    try:
        said = json_text.parse(distribution.read_text("direct_url.json") or "{}", "direct_url.json")
        project = urlsplit(said["url"])
        if project.scheme != "file" or not said["dir_info"]["editable"]:
            return []
        folder = Path(url2pathname(project.path))
        return [folder / package, folder / "src" / package]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _brought(distribution: Distribution, package: str) -> bool:
    """Whether the package is one that this distribution installed."""
    try:
        listed = distribution.read_text("top_level.txt") or ""
        if package in listed.split():
            return True
        start = f"{package}/"
        return any(str(file).startswith(start) for file in distribution.files or ())
    except (OSError, ValueError):  # records that cannot be read are nobody's
        return False
