#!/usr/bin/env python
"""A table of a page as an SVG: its rows down, a panel for each column of numbers.

    python scripts/table_figure.py docs/conditioning.md "Along time, then along frequency" -o knitting.svg

Reads the last table below a heading. Cells are numbers, or numbers with their intervals, `0.7 (0.6, 0.8)`; in
columns of anything else nothing is drawn. `--names 2` takes the first two columns for the names of rows.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from figures.rows import Cell, figure

from speech_peft.errors import ConfigError
from speech_peft.files.atomic import write_text

_NUMBER = r"(-?\d*\.?\d+)"
_CELL = re.compile(rf"{_NUMBER}(?: \({_NUMBER}, {_NUMBER}\))?")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("heading")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--names", type=int, default=1, help="columns that say what a row is")
    parser.add_argument("--columns", nargs="*", help="headings of those to draw; by default all with numbers")
    parser.add_argument("--without", help="leave out rows whose name has this in it")
    parser.add_argument("--log", action="store_true", help="one logarithmic scale for all panels")
    options = parser.parse_args()
    head, *rows = table(options.page, options.heading)
    named = [(name_of(row[: options.names], head), row) for row in rows]
    kept = [(name, row) for name, row in named if not options.without or options.without not in name]
    columns = {}
    for place in range(options.names, len(head)):
        title = plain(head[place])
        cells = [cell(row[place]) for _, row in kept]
        if any(cells) and (not options.columns or title in options.columns):
            columns[title] = cells
    if lacking := [title for title in options.columns or () if title not in columns]:
        raise ConfigError(f"{options.page}: {lacking[0]} is no column of numbers below {options.heading!r}")
    write_text(options.out, figure(options.heading, [name for name, _ in kept], columns, options.log))


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the last table below a heading, its head first; raises ConfigError where there is none."""
    below = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    (section,) = [part for part in below if part.partition("\n")[0] == heading] or [""]
    blocks = re.findall(r"(?:^\|.*\|\n?)+", section, flags=re.MULTILINE)
    if not blocks:
        raise ConfigError(f"{page}: there is no table below {heading!r}")
    head, _, *rows = [re.split(r"(?<!\\)\|", line.strip()[1:-1]) for line in blocks[-1].splitlines()]
    return [[each.strip() for each in row] for row in (head, *rows)]


def name_of(cells: Sequence[str], head: Sequence[str]) -> str:
    """What a row is called; what comes second says what it is, such as 5 seconds."""
    first, *more = map(plain, cells)
    return ", ".join([first, *(f"{each} {title}" for each, title in zip(more, head[1:], strict=False))])


def cell(text: str) -> Cell | None:
    found: Sequence[str | None] | None = (match := _CELL.fullmatch(text.strip("*"))) and match.groups()
    if not found or found[0] is None:
        return None
    value, low, high = (float(each if each is not None else found[0]) for each in found)
    return Cell(value, low, high)


def plain(text: str) -> str:
    """Without marks of the page."""
    return text.replace("`", "").replace("\\|", "|")


if __name__ == "__main__":
    main()
