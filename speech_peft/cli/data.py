"""What a recipe trains on: a page of pairs to hear, and one manifest made of several."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..terminal.door import line
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from ..audio.degrade import Degrader
    from ..audio.manifest import Row

SAMPLE_RATE = 16_000
"""At which every backbone here listens, and so at which clips are degraded."""

app = new_app("Look at what a recipe trains on, and put it together.")


@app.callback()
def group() -> None:
    """Look at what a recipe trains on, and put it together."""


@app.command()
def join(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests or folders, of any kind.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The manifest that is written (.jsonl).")],
) -> None:
    """Write one manifest of the recordings of several; the recordings stay where they are."""
    from ..audio import manifest

    rows = one_list([manifest.read(path) for path in manifests])
    out.parent.mkdir(parents=True, exist_ok=True)
    manifest.write(out, rows)
    line(f"{out}: {len(rows):,} rows")


def one_list(lists: "Sequence[Sequence[Row]]") -> "list[Row]":
    """All rows in order; an id that comes again gets a number: `a`, `a-2`."""
    seen: Counter[str] = Counter()
    rows: list[Row] = []
    for row in (row for rows in lists for row in rows):
        seen[row.id] += 1
        id = row.id if seen[row.id] == 1 else f"{row.id}-{seen[row.id]}"
        seen[id] += id != row.id
        rows.append(replace(row, id=id))
    return rows


@app.command()
def preview(
    recipe: Annotated[str, typer.Argument(help="A file, or the name of a bundled recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As in optim.lr=3e-4.")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Clips shown.")] = 20,
    out: Annotated[Path, typer.Option("-o", "--out", help="The page that is written.")] = Path(
        "preview.html"
    ),
    epoch: Annotated[int, typer.Option(min=0, help="Whose degradations.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.1, help="The most of each clip that is shown.")] = 15.0,
) -> None:
    """Write a page of training clips, clean and as the recipe degrades them, before a GPU hour is spent."""
    from .. import __version__
    from ..audio import manifest
    from ..bench.report.facts import Head, when
    from ..bench.report.page import fill
    from ..bench.report.players_matched import names
    from ..files.atomic import write_text
    from ..recipe import config

    chosen = config.read(recipe, overrides or ())
    degrader = config.degrader_of(chosen)
    rows = manifest.read(chosen.data.train, chosen.data.columns)
    if chosen.data.train_where:
        rows = manifest.where(rows, chosen.data.train_where, chosen.data.train)
    places = spread(len(rows), number)
    shown = [show(rows, place, degrader, epoch, seconds) for place in places]
    now = when(datetime.now(UTC).isoformat())
    page = fill(
        "preview.html",
        head=Head(
            "Training data",
            f"What {recipe} hears",
            (
                ("Manifest", str(chosen.data.train)),
                ("Rows", f"{len(shown)} shown of {len(rows):,}"),
                ("Degradation", f"epoch {epoch}, seed {chosen.seed}" if degrader else "none"),
                ("Date", now),
                ("Version", __version__),
            ),
            date=now[:10],
        ),
        recipe=recipe,
        rows=shown,
        names=names([row["media"] for row in shown]),
        counts=Counter(step["name"] for row in shown for step in row["applied"]).most_common(),
    )
    write_text(out, page)
    line(out)
    if all(row["error"] for row in shown):
        raise typer.Exit(1)


def spread(rows: int, number: int) -> list[int]:
    """`number` places, evenly over the rows: a manifest's first rows are often one speaker."""
    number = min(rows, number)
    return [place * rows // number for place in range(number)]


def show(
    rows: "Sequence[Row]", place: int, degrader: "Degrader | None", epoch: int, seconds: float
) -> dict[str, Any]:
    """One clip as the page has it; a clip that cannot be read is a row with the reason."""
    from ..audio import io
    from ..bench.own_files import Others
    from ..bench.report.players_matched import side_by_side
    from ..errors import AudioError
    from ..metrics.metric import Sound

    row = rows[place]
    about: dict[str, Any] = {"id": row.id, "seconds": 0.0, "applied": [], "media": {}, "error": ""}
    about["untouched"] = "recorded as it is" if row.target_audio else "left clean"
    try:
        given = io.load(row.audio, SAMPLE_RATE, row.start, row.duration).samples
        heard = given
        if degrader is not None:
            result = degrader(given, SAMPLE_RATE, id=row.id, epoch=epoch, pool=Others(rows, place))
            heard, about["applied"] = result.samples, [described(step) for step in result.applied]
        clean = io.load(row.target_audio, SAMPLE_RATE).samples if row.target_audio else given
    except AudioError as error:
        return {**about, "error": str(error)}
    most = round(seconds * SAMPLE_RATE)
    pair = {"clean": Sound(clean[:most], SAMPLE_RATE), "degraded": Sound(heard[:most], SAMPLE_RATE)}
    return {**about, "seconds": len(given) / SAMPLE_RATE, "media": side_by_side(pair)}


def described(step: Mapping[str, Any]) -> dict[str, str]:
    """`{kind: noise, color: pink, snr: 4.237}` as a name and `color pink, snr 4.24`."""
    name = str(step.get("step", step["kind"]))
    drawn = {key: value for key, value in step.items() if key not in ("kind", "step")}
    values = (
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in drawn.items()
    )
    return {"name": name, "drawn": ", ".join(values)}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "data")


if __name__ == "__main__":
    raise SystemExit(main())
