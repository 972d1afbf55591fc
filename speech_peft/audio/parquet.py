"""Hugging Face's data sets as they lie on disk and on the hub: Parquet files with the sound inside.

pyarrow reads them; it is large, and most people have no such file, so it is an extra.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import json_text
from .rows.row import Row
from .unpacked import Classes, rows_of

_SHARD = re.compile(r"(.*?)-\d+-of-\d+")
_AT_ONCE = 64  # rows; each holds a recording


def read(path: Path) -> list[Row]:
    """The rows of one file, or of all shards of one split in a folder; raises ConfigError."""
    files = [path] if path.is_file() else shards(path)
    reader = _pyarrow(files[0])
    classes: dict[str, Sequence[str]] = {}
    return rows_of(_records(reader, files, classes), str(path), classes)


def shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in order; empty where it has none, ConfigError where they are of several
    splits."""
    files = sorted(folder.glob("*.parquet"))
    splits = {(match[1] if (match := _SHARD.fullmatch(file.stem)) else file.stem) for file in files}
    if len(splits) > 1:
        raise ConfigError(
            f"{folder}: holds the splits {', '.join(sorted(splits))}; put the files of the one that is meant "
            "into a folder of their own"
        )
    return files


def _records(reader: Any, files: Sequence[Path], classes: dict[str, Sequence[str]]) -> Iterator[Any]:
    for file in files:
        try:
            opened = reader.ParquetFile(file)
            classes.update(_classes(opened.schema_arrow.metadata))
            for batch in opened.iter_batches(batch_size=_AT_ONCE):
                yield from batch.to_pylist()
        except (OSError, ValueError) as error:  # what pyarrow raises for a file that is none
            raise ConfigError(f"{file}: cannot be read as Parquet ({error})") from None


def _classes(metadata: Any) -> Classes:
    """What numbers stand for, as `datasets` writes it into the schema."""
    with suppress(ConfigError, ValueError, KeyError, TypeError, AttributeError):
        features = json_text.parse(metadata[b"huggingface"].decode(), "features")["info"]["features"]
        return {name: tuple(one["names"]) for name, one in features.items() if one.get("names")}
    return {}


def _pyarrow(file: Path) -> Any:
    try:
        import_module("pyarrow")
        return import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{file}: to read Parquet, pyarrow is needed: pip install 'speech_peft[parquet]'"
        ) from None
