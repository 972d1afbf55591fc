"""Tables with sound in a column: Parquet, and Arrow's own files and streams, as `datasets` saves them.

pyarrow reads them; it is large, and most people have no such file, so it is an extra.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import IO, Any, Protocol, runtime_checkable

from ...errors import ConfigError
from .. import store

_AT_ONCE = 256  # rows of Parquet


@runtime_checkable
class Table(Protocol):
    """A table that is open. Its groups are what is read together."""

    schema: Any

    def about(self, sound: str | None) -> Iterator[dict[str, Any]]:
        """The rows, of `sound` no more than its path."""
        ...

    def groups(self) -> tuple[int, ...]:
        """How many rows each group has."""
        ...

    def group(self, number: int, column: str) -> list[Any]: ...


class _Parquet:
    def __init__(self, file: IO[bytes]):
        self._file = import_module("pyarrow.parquet").ParquetFile(file)
        self.schema = self._file.schema_arrow

    def about(self, sound: str | None) -> Iterator[dict[str, Any]]:
        columns = [name for name in self.schema.names if name != sound]
        if sound and "path" in _fields(self.schema.field(sound).type):
            columns.append(f"{sound}.path")  # of which the bytes are not read
        for batch in self._file.iter_batches(batch_size=_AT_ONCE, columns=columns):
            yield from batch.to_pylist()

    def groups(self) -> tuple[int, ...]:
        about = self._file.metadata
        return tuple(about.row_group(number).num_rows for number in range(about.num_row_groups))

    def group(self, number: int, column: str) -> list[Any]:
        return self._file.read_row_group(number, columns=[column]).column(0).to_pylist()


class _Arrow:
    """What has an index (a file) is read a batch at a time; a stream is gone through up to the batch."""

    def __init__(self, file: IO[bytes]):
        pyarrow = import_module("pyarrow")
        try:
            self._file: Any = pyarrow.ipc.open_file(file)
            self._indexed = True
        except pyarrow.ArrowInvalid:
            file.seek(0)
            self._file, self._indexed = pyarrow.ipc.open_stream(file), False
        self.schema = self._file.schema

    def _batches(self) -> Iterator[Any]:
        if not self._indexed:
            return iter(self._file)
        return (self._file.get_batch(number) for number in range(self._file.num_record_batches))

    def about(self, sound: str | None) -> Iterator[dict[str, Any]]:
        others = [name for name in self.schema.names if name != sound]
        named = sound is not None and "path" in _fields(self.schema.field(sound).type)
        for batch in self._batches():
            paths = batch.column(sound).field("path").to_pylist() if named else None
            for number, record in enumerate(batch.select(others).to_pylist()):
                yield {**record, sound: {"path": paths[number]}} if paths and sound else record

    def groups(self) -> tuple[int, ...]:
        return tuple(batch.num_rows for batch in self._batches())

    def group(self, number: int, column: str) -> list[Any]:
        for at, batch in enumerate(self._batches()):
            if at == number:
                return batch.column(column).to_pylist()
        raise OSError("there is no such batch")


_KINDS = {".parquet": _Parquet, ".arrow": _Arrow}
SUFFIXES = frozenset(_KINDS)


@contextmanager
def opened(path: str) -> Iterator[Table]:
    """Raises ConfigError without pyarrow and for what is no table, FileNotFoundError for what is gone."""
    suffix = path[path.rfind(".") :].lower()
    try:
        import_module("pyarrow")
    except ImportError:
        raise ConfigError(
            f"{path}: to read {suffix[1:].title()}, pyarrow is needed: pip install 'speech_peft[parquet]'"
        ) from None
    place, name = store.of_file(path)
    with place.opened(name) as file:
        try:
            table = _KINDS[suffix](file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read as {suffix[1:].title()} ({error})") from None
        yield table


def sound_column(schema: Any) -> str | None:
    """The column that holds sound, by its type: bytes, or a struct with bytes."""
    types = import_module("pyarrow").types
    for field in schema:
        if "bytes" in _fields(field.type) or types.is_binary(field.type) or types.is_large_binary(field.type):
            return field.name
    return None


def sound(path: str, row: int) -> bytes:
    """What the sound column holds in a row, counted from 0. Raises OSError where that is nothing."""
    for group, rows in enumerate(_groups(path)):
        if row < rows:
            found = _group(path, group)[row]
            content = found.get("bytes") if isinstance(found, dict) else found
            if content is None:
                raise OSError("the row holds no sound")
            return content
        row -= rows
    raise OSError("there is no such row")


@lru_cache(maxsize=2)
def _group(path: str, number: int) -> list[Any]:
    """Rows are asked for one after the other, so their group is read once."""
    with opened(path) as table:
        return table.group(number, sound_column(table.schema) or "")


@lru_cache(maxsize=64)
def _groups(path: str) -> tuple[int, ...]:
    with opened(path) as table:
        return table.groups()


def _fields(kind: Any) -> list[str]:
    """The names in a struct; of another type none."""
    if not import_module("pyarrow").types.is_struct(kind):
        return []
    return [kind.field(number).name for number in range(kind.num_fields)]
