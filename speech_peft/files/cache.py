"""Where things are kept that can be made again."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """$SPEECH_PEFT_CACHE, or ~/.cache/speech_peft."""
    return Path(os.environ.get("SPEECH_PEFT_CACHE") or Path.home() / ".cache" / "speech_peft")
