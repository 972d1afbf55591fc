"""Where things are kept that can be made again."""

import os
from collections.abc import Callable
from pathlib import Path

from .atomic import atomic_folder


def cache_dir() -> Path:
    """$SPEECH_PEFT_CACHE, or ~/.cache/speech_peft."""
    return Path(os.environ.get("SPEECH_PEFT_CACHE") or Path.home() / ".cache" / "speech_peft")


def made_once(final: Path, make: Callable[[Path], None]) -> Path:
    """The folder `final`, whole: `make` fills it where it is not there yet.

    Another process may be first, with the same bytes; then its folder stays. Raises what `make` raises, and
    OSError where nothing can be written.
    """
    if not final.is_dir():
        try:
            with atomic_folder(final) as new:
                make(new)
        except OSError:
            if not final.is_dir():
                raise
    return final
