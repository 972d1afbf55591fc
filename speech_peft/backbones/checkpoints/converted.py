"""Where a CTranslate2 folder lies as a Hugging Face one: found in the cache, converted when it is not there.

Finding it imports no torch: a dry run, and a run that has nothing to do, are answered without.
"""

import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...errors import ConfigError
from ...files import json_text
from ...files.cache import made_once

_FORMAT = 1  # of what is written: part of the cache's key, so that a better converter converts again


def convert(folder: Path, cache: Path, sha256: str) -> Path:
    """A Hugging Face folder with the weights of a CTranslate2 one; found again in the cache by their hash."""
    final = cache / f"whisper-{sha256[:16]}-v{_FORMAT}"
    if _whole(final):
        return final
    from . import ctranslate2

    shutil.rmtree(final, ignore_errors=True)  # damaged since: made again
    variables = ctranslate2.read_variables(folder / "model.bin")
    return made_once(final, lambda new: ctranslate2.write(new, folder, variables))


def _whole(folder: Path) -> bool:
    """Whether what was converted before can still be read, by its headers and lengths."""
    try:
        json_text.read_object(folder / "config.json")
        with safe_open(folder / "model.safetensors", "np"):  # which compares lengths, and reads no tensor
            return True
    except (ConfigError, OSError, SafetensorError):
        return False
