"""speech-peft sweep RECIPE grid.yaml -o OUT [key=value ...]: methods x seeds x folds of one recipe.

Each cell is trained, saved, opened again and tested on rows that it has not heard. What is finished is a line
of OUT/results.jsonl and is not run again: the same command goes on after whatever ended it, and several of
them may work on one OUT. OUT/summary.md is the table so far; OUT/runs keeps the adapters. With --overhead it
adds to the table what each method's adapter costs at inference, which takes an idle machine and no training.

Exit codes: 0 done, 1 nothing worked, 2 wrong usage, 3 some cells failed (`error` in their line), 130 stopped.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Interrupted
from ..files import json_text
from ..folders.options import new_folder
from ..terminal.door import complain, say
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from .grid import Cell
    from .results import Results

app = new_app()


@app.command(no_args_is_help=True)
def command(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or a bundled name.")],
    grid: Annotated[str, typer.Argument(help="A grid's file: methods, seeds, folds, vary, set.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            "--output-dir",
            help="Folder for results, summary and adapters.",
            callback=new_folder,
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="For all cells, as in optim.lr=3e-4.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the table so far and stop.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Validate and list every cell and stop.")] = False,
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Measure what finished adapters add to the encoder and stop.")
    ] = False,
) -> None:
    """Train and test every cell of a grid over one recipe."""
    from . import grid as grids

    cells = grids.cells(recipe, grids.read(grid), out, overrides or ())
    if check:
        say("\n".join(f"{cell.key}  {cell.name}: {len(cell.rows)} test rows" for cell in cells))
        return
    from .results import Results
    from .table import markdown, summary

    results = Results(out)
    if overhead:
        measure(cells, results, out)
    elif not table:
        sweep(cells, results, out)
    rows = results.rows()
    say(markdown(summary(cells, rows)), end="")
    failed = sum(rows[cell.key]["error"] is not None for cell in cells if cell.key in rows)
    if failed and not (table or overhead):
        raise typer.Exit(1 if failed == len(cells) else 3)


def sweep(cells: Sequence["Cell"], results: "Results", out: Path) -> None:
    """Run what is not settled, a cell at a time; cells that other processes are at are left to them."""
    from . import cell as one

    show = _Show(cells, results)
    again = True
    while again:  # once more for what a process that was killed meanwhile had claimed
        again = False
        for cell in cells:
            if results.settled(cell.key):
                continue
            with results.claim(cell.key) as mine:
                if not mine or results.settled(cell.key):
                    continue
                row = one.run(cell)
                results.add(row)
            again = True
            show(cell, row)
            _write_summary(cells, results, out)
    _write_summary(cells, results, out)


def measure(cells: Sequence["Cell"], results: "Results", out: Path) -> None:
    """Add to one finished cell of each method what its adapter adds to the time of the encoder."""
    from .overhead import overhead

    rows = results.rows()
    good = [cell for cell in cells if cell.key in rows and rows[cell.key]["error"] is None]
    for method in dict.fromkeys(cell.method for cell in good):
        found = ((cell, Path(rows[cell.key]["folder"], cell.recipe.train[0])) for cell in good)
        there = [(cell, folder) for cell, folder in found if cell.method == method and folder.is_dir()]
        if not there:
            complain(f"{method}: its adapters are gone from {out}, so it is not measured")
            continue
        cell, folder = there[0]
        ratio = round(overhead(folder, cell.recipe.backbone.weights), 4)
        results.add({**rows[cell.key], "overhead": ratio})
        complain(f"{method}: {ratio:.3f} x the time of the bare encoder")
    _write_summary(cells, results, out)


def _write_summary(cells: Sequence["Cell"], results: "Results", out: Path) -> None:
    from ..files.atomic import write_text
    from .table import markdown, summary

    found = summary(cells, results.rows())
    write_text(out / "summary.json", json_text.write(found, indent=2, ensure_ascii=False) + "\n")
    write_text(out / "summary.md", markdown(found))


class _Show:
    """A line for each cell, with what it says of the time that is left."""

    def __init__(self, cells: Sequence["Cell"], results: "Results"):
        self.cells, self.results = cells, results
        self.before, self.started = set(results.rows()), time.monotonic()
        left = sum(not results.settled(cell.key) for cell in cells)
        done = len(cells) - left
        complain(f"{left} cells to do" + (f", {done} already done" if done else ""))

    def __call__(self, cell: "Cell", row: Mapping[str, Any]) -> None:
        rows = self.results.rows()
        at = sum(cell.key in rows for cell in self.cells)
        said = row["error"] or _scores(row)
        line = f"[{at}/{len(self.cells)}] {cell.name}: {said}, {row['cell_seconds']:.0f} s"
        complain(f"{line}; {self._left(rows)} left")

    def _left(self, rows: Mapping[str, Any]) -> str:
        """What is to do, by the time that each method has taken, at the pace of all processes together."""
        taken: dict[str, list[float]] = {}
        for row in rows.values():
            taken.setdefault(row["method"], []).append(row["cell_seconds"])
        usual = fmean(fmean(seconds) for seconds in taken.values())
        todo = sum(
            fmean(taken[cell.method]) if cell.method in taken else usual
            for cell in self.cells
            if cell.key not in rows
        )
        new = sum(row["cell_seconds"] for key, row in rows.items() if key not in self.before)
        seconds = todo * (time.monotonic() - self.started) / max(new, 1e-9)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"


def _scores(row: Mapping[str, Any]) -> str:
    metric = row.get("metric", "wer" if "wer" in row else "accuracy")
    valid = row["valid"]
    known = f" ({valid['name']} {valid['value']:.4f} in validation)" if valid else ""
    value = row[metric]
    return f"{metric} {'-' if value is None else f'{value:.4f}'}{known}"


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        return run(app, argv, "sweep")
    except Interrupted:
        complain("interrupted: what is finished is kept, the same command goes on from there")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
