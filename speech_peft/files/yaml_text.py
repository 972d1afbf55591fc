"""YAML that others wrote: plain values, no objects, no bombs.

Aliases are allowed, and count as often as they are used: nine lines of nine aliases each stand for 10^9
values, which nobody notices until something walks over them.
"""

import os
from typing import Any

import yaml

from ..errors import ConfigError
from . import text as text_file
from .plain_values import DEPTH, check

MOST_BYTES = 256_000
"""Of a whole file; the largest recipe has 4 kB."""
MOST_VALUES = 20_000

# The one in C is ten times as fast; both make plain values only.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> Any:
    """The value that a file holds; raises ConfigError naming the file, the line and what is wrong."""
    return parse(text_file.read(path, most_bytes), os.fspath(path))


def parse(text: str, where: str) -> Any:
    """The value of a YAML text; raises ConfigError that begins with `where`."""
    try:
        _check_size(text, where)
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {_reason(error)}") from None
    except RecursionError:
        raise ConfigError(f"{where}: lists and mappings are nested too deep") from None
    except (ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        # What its resolvers take for a date or a number and then cannot convert, such as 2024-13-45.
        raise ConfigError(f"{where}: a value cannot be read: {error}. Put it into quotes") from None
    return check(value, where)


def _check_size(text: str, where: str) -> None:
    """Raise ConfigError for more values, or more depth, than a recipe can have, aliases resolved.

    Goes over the events of the parser, of which there are never more than the text has characters.
    """
    sizes: dict[str, int] = {}
    open_ones: list[tuple[str | None, int]] = [(None, 0)]  # anchor and values so far
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            if len(open_ones) > DEPTH:
                raise ConfigError(f"{where}: more than {DEPTH} lists and mappings lie inside each other")
            open_ones.append((event.anchor, 1))
            continue
        anchor, count = None, 0
        if isinstance(event, yaml.ScalarEvent):
            anchor, count = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (name for name, _ in open_ones):
                raise ConfigError(f"{where}: *{event.anchor} stands inside what it names")
            count = sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            anchor, count = open_ones.pop()
        if anchor is not None:
            sizes[anchor] = count
        name, before = open_ones[-1]
        open_ones[-1] = (name, before + count)
        if open_ones[-1][1] > MOST_VALUES:
            raise ConfigError(f"{where}: more than {MOST_VALUES:,} values, aliases resolved")


def _reason(error: yaml.YAMLError) -> str:
    """In one line: libyaml says it in five."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
    return f"{' '.join(str(problem).split())}{place}"
