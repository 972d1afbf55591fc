"""Where a CTranslate2 folder lies as a Hugging Face one: found in the cache, converted when it is not there.

Finding it imports no torch: a dry run, and a run that has nothing to do, are answered without.
"""

import os
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...errors import ConfigError
from ...files import json_text

_FORMAT = 1  # of what is written: part of the cache's key, so that a better converter converts again


def convert(folder: Path, cache: Path, sha256: str) -> Path:
    """A Hugging Face folder with the weights of a CTranslate2 one; found again in the cache by their hash."""
    final = cache / f"whisper-{sha256[:16]}-v{_FORMAT}"
    if _whole(final):
        return final
    from . import ctranslate2

    shutil.rmtree(final, ignore_errors=True)  # damaged since: made again
    variables = ctranslate2.read_variables(folder / "model.bin")
    partial = cache / f".{final.name}.{os.getpid()}"
    partial.mkdir(parents=True, exist_ok=True)
    try:
        ctranslate2.write(partial, folder, variables)
        partial.rename(final)
    except OSError:
        if not final.is_dir():  # else another process was first, with the same bytes
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def _whole(folder: Path) -> bool:
    """Whether what was converted before can still be read, by its headers and lengths."""
    try:
        json_text.read_object(folder / "config.json")
        with safe_open(folder / "model.safetensors", "np"):  # which compares lengths, and reads no tensor
            return True
    except (ConfigError, OSError, SafetensorError):
        return False
