"""The records of a manifest in one file, found once and read again one by one: JSON lines, and tables.

A record keeps its place: where its bytes begin, and on which line. One that cannot be read is a ConfigError
that is given in its place, so that whoever reads decides whether the others count.
"""

import csv
import gzip
import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from ...errors import ConfigError
from ...files import json_text
from .row import shown

Record = dict[str, Any]
Found = tuple[int, int, Record | ConfigError, bool]
"""The byte a record begins at, the number of its first line, what it says, and whether its text is certainly
clean: without NUL, and without halves of characters, which only escapes can write."""
LONGEST = 16 * 2**20
"""Bytes of one line. What is longer is no manifest, and reading on would fill the memory."""
_BOM = b"\xef\xbb\xbf"


@runtime_checkable
class Format(Protocol):
    """How records stand in a file."""

    def scan(self, file: IO[bytes]) -> Iterator[Found]:
        """Every record of the file, in order."""
        ...

    def parse(self, where: str, raw: bytes) -> Record:
        """The record that these bytes hold; raises ConfigError."""
        ...


class JsonLines:
    """One object a line."""

    def __init__(self, path: Path):
        self.path = path

    def scan(self, file: IO[bytes]) -> Iterator[Found]:
        for at, number, line in _lines(self.path, file):
            if line.isspace():
                continue
            try:
                record = json_text.cells(line.decode())
            except ValueError:
                record = None
            if type(record) is not dict:
                record = self._refused(f"{self.path}:{number}", line)
            yield at, number, record, b"\\" not in line

    def parse(self, where: str, raw: bytes) -> Record:
        line = _text(where, raw)
        try:
            record = json_text.cells(line)
        except ValueError as error:
            raise ConfigError(f"{where}: not a JSON object on one line ({error})") from error
        if not isinstance(record, dict):
            raise ConfigError(f"{where}: expected an object {{...}}, got {shown(line.strip(), 40)}")
        return record

    def _refused(self, where: str, line: bytes) -> Record | ConfigError:
        try:
            return self.parse(where, line)
        except ConfigError as error:
            return error


class Table:
    """A header, and a record for each line below; in quotes a cell may hold line ends."""

    def __init__(self, path: Path, tabs: bool):
        self.path, self.tabs = path, tabs
        self.names: list[str] = []

    def scan(self, file: IO[bytes]) -> Iterator[Found]:
        lines = _Cells(self.path, _lines(self.path, file))
        first = next(lines, "")
        # Tab-separated files do not quote: Common Voice sentences begin and end with bare quotes.
        self.style: dict[str, Any] = {
            "delimiter": "\t" if self.tabs else max(",;|\t", key=first.count),
            "quoting": csv.QUOTE_NONE if self.tabs else csv.QUOTE_MINIMAL,
        }
        if lines.problem:
            raise lines.problem
        lines.again = first  # a name of the header may hold a line end too
        reader = csv.reader(lines, **self.style)
        try:
            self.names = next(reader, [])
            lines.begin()
            for cells in reader:
                problem, (at, number) = lines.problem, lines.begun
                if cells:
                    yield at, number, problem or self._record(f"{self.path}:{number}", cells), not lines.odd
                lines.begin()
        except csv.Error as error:
            raise ConfigError(
                f"{self.path}:{lines.begun[1]}: {error}; a quote that is not closed?"
            ) from error

    def parse(self, where: str, raw: bytes) -> Record:
        cells = next(csv.reader(io.StringIO(_text(where, raw), newline=""), **self.style), [])
        record = self._record(where, cells)
        if isinstance(record, ConfigError):
            raise record
        return record

    def _record(self, where: str, cells: list[str]) -> Record | ConfigError:
        if len(cells) != len(self.names):
            return ConfigError(f"{where}: more or fewer cells than the header: {', '.join(self.names)}")
        record = dict(zip(self.names, cells, strict=True))
        record.pop("", None)  # the row numbers that pandas puts first, under no name
        return record


class _Cells:
    """Lines of a table as text, and where the record that they belong to began."""

    def __init__(self, path: Path, lines: Iterator[tuple[int, int, bytes]]):
        self.path, self.lines = path, lines
        self.again: str | None = None
        self.begin()

    def begin(self) -> None:
        """The next line is the first of a record."""
        self.begun, self.problem, self.odd = (-1, 0), None, False

    def __iter__(self) -> "_Cells":
        return self

    def __next__(self) -> str:
        if self.again is not None:
            line, self.again = self.again, None
            return line
        at, number, raw = next(self.lines)
        if self.begun[0] < 0 or raw.isspace():
            self.begun = (at, number)
        self.odd = self.odd or b"\0" in raw
        try:
            return _text(f"{self.path}:{number}", raw)
        except ConfigError as error:
            self.problem: ConfigError | None = self.problem or error
            return raw.decode("latin-1")  # so that the reader finds where the record ends


def form(path: Path) -> Format | None:
    """How a file of this name holds records; None where it holds none."""
    suffix = suffix_of(path)
    if suffix in (".jsonl", ".json", ".ndjson"):
        return JsonLines(path)
    return Table(path, tabs=suffix == ".tsv") if suffix in (".csv", ".tsv") else None


def suffix_of(path: Path) -> str:
    """The suffix, lower case, that tells what lies in the file; `.gz` is not part of it."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, or what it holds as plain lines in a nameless temporary one: any byte of it can be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"{path}: is not a regular file")
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(open(path, "rb"))
            head = file.peek(1 << 16)  # type: ignore[attr-defined]
            if path.suffix == ".gz" or (b"\r" in head and b"\n" not in head):  # line ends of the first Macs
                packed, file = file, stack.enter_context(tempfile.TemporaryFile())
                _unpack(packed, file, gz=path.suffix == ".gz")
                head = file.peek(4)  # type: ignore[attr-defined]
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise ConfigError(f"{path}:1: is UTF-16 text, tried as UTF-8; save it as UTF-8")
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error


def _unpack(packed: IO[bytes], into: IO[bytes], gz: bool) -> None:
    with gzip.open(packed) if gz else nullcontext(packed) as source:
        while block := source.read(1 << 20):
            into.write(block if gz else block.replace(b"\r", b"\n"))
    into.seek(0)


def _lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Where each line begins, its number, and the line; a byte order mark is passed by."""
    at = number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise ConfigError(f"{path}:{number}: a line of more than {LONGEST >> 20} MB")
        size = len(line)
        if number == 1 and line.startswith(_BOM):
            yield at + 3, number, line[3:]
        else:
            yield at, number, line
        at += size


def _text(where: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where}: cannot be read as UTF-8 text (byte 0x{raw[error.start]:02x} at {error.start}: "
            f"{error.reason}). Save it as UTF-8: iconv -f CP1252 -t UTF-8, where it came from Windows"
        ) from error
