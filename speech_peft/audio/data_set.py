"""A data set in memory, as rows: Hugging Face's `Dataset`, or any list of records.

It is known by what it can do, so that `datasets` need not be installed: it gives records one after the other,
and may have `features` that name classes and say how a column of sound is decoded. Sound is asked for as the
files that it came as, where the data set can give them, so that nothing is decoded twice.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from itertools import chain
from typing import Any

from ..errors import ConfigError
from .rows.columns import COLUMNS
from .rows.row import Row
from .unpacked import Classes, rows_of


def rows_in(data: Any, where: str) -> list[Row]:
    """The rows of a data set or of a list of records or rows; raises ConfigError for what holds none."""
    features = getattr(data, "features", None)
    features = features if isinstance(features, Mapping) else {}
    each = iter(_undecoded(data, features))
    first = next(each, None)
    if first is None:
        raise ConfigError(f"{where}: holds no record")
    if isinstance(first, Row):
        return [first, *each]
    if not isinstance(first, Mapping):
        raise ConfigError(f"{where}: expected records with a column of sound, got {type(first).__name__}")
    return rows_of(chain([first], each), where, _classes(features))


def _undecoded(data: Any, features: Mapping[str, Any]) -> Iterable[Any]:
    """The data set with its sound as files, in memory or by name, where it decodes it otherwise."""
    for name in (*COLUMNS["audio"], *COLUMNS["target_audio"]):
        feature: Any = features.get(name)
        if getattr(feature, "decode", False) and hasattr(data, "cast_column"):
            packed = copy(feature)
            packed.decode = False
            data = data.cast_column(name, packed)
    return data


def _classes(features: Mapping[str, Any]) -> Classes:
    return {
        name: one.names for name, one in features.items() if isinstance(getattr(one, "names", None), list)
    }
