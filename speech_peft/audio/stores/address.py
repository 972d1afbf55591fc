"""How what lies in a store is named, and what is told of it.

pathlib makes `s3:/bucket/key` of `s3://bucket/key`, and such a path is understood everywhere: a manifest, a
row or an option may name an object where it may name a file.
"""

import os
import re
from dataclasses import dataclass

PathLike = str | os.PathLike[str]
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""What fsspec needs for a scheme; others come with what is installed anyway."""
SCHEMES = (*PACKAGES, "hf", "memory", "http", "https")
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(.+)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """What lies in a store, by its name below the root."""

    name: str
    bytes: int
    modified: float
    """Seconds since 1970 by the store's clock; 0.0 where it does not say."""


def is_remote(path: PathLike) -> bool:
    """Whether it names an object of a store, with one slash behind the scheme or two."""
    return _ADDRESS.fullmatch(os.fspath(path)) is not None


def address(path: PathLike) -> str:
    """As fsspec writes it; a path of this machine as it is.

    >>> address("s3:/bucket/clips/a.wav")
    's3://bucket/clips/a.wav'
    """
    match = _ADDRESS.fullmatch(os.fspath(path))
    return os.fspath(path) if match is None else f"{match[1]}://{match[2]}"
