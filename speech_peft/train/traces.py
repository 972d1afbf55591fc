"""What a run leaves to repeat it: config.yaml, the recipe, and env.json, the machine."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..recipe import config
from ..recipe.recipe import Recipe
from .processes import is_first


def leave_traces(recipe: Recipe, out: Path, precision: Any) -> None:
    """Writes both; what runs that were killed left half done in `out` goes."""
    from ..files.atomic import sweep, write_text

    if not is_first():
        return
    sweep(out)
    write_text(out / "config.yaml", config.dump(recipe))
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    environment = {
        "speech_peft": __version__,
        "git": git.stdout.strip() or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "argv": sys.argv,
        "seed": recipe.seed,
        "precision": precision,
        **{name: version(name) for name in ("torch", "transformers", "lightning", "numpy")},
    }
    write_text(out / "env.json", json.dumps(environment, indent=2) + "\n")
