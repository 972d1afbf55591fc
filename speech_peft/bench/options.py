"""Options of several benchmarks, and what they mean."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError
from ..folders.options import ADDRESS, new_folder
from ..terminal.door import complain

if TYPE_CHECKING:
    from ..audio.manifest import Row
    from ..metrics.slices import Options
    from .report.page import Limits


Out = Annotated[
    Path,
    typer.Option(
        "-o",
        "--out",
        "--output-dir",
        help="Folder for scores.json, report.html and the runs.",
        callback=new_folder,
    ),
]

Data = Annotated[Path, typer.Option(help="Manifest, or a folder that holds one.")]

Adapters = Annotated[
    list[str] | None, typer.Option("--adapter", help="FOLDER or NAME=FOLDER (or hub id); may be repeated.")
]

Weights = Annotated[
    str | None,
    typer.Option("--weights", "--model", help=f"The frozen model: {ADDRESS}; the adapter's own."),
]

Degrade = Annotated[
    str | None, typer.Option(help="A preset such as telephone or restoration, or a YAML list of steps.")
]

Limit = Annotated[int | None, typer.Option(min=1, help="Only the first rows.")]

Guard = Annotated[
    Literal["full", "sound", "off"],
    typer.Option(help="full: voice, words, level, length; sound: without words; off."),
]

Steps = Annotated[
    int | None, typer.Option("--steps", "-T", min=1, help="Rounds of a decoder that refines (WaveFit).")
]

Normalizer = Annotated[
    Literal["none", "basic", "marks", "whisper-en", "english", "auto"],
    typer.Option(help="What of writing counts; auto: by the language."),
]

Language = Annotated[
    str, typer.Option(help="Code of rows that name none, such as en.", metavar="<code>", show_default=False)
]

SliceBy = Annotated[list[str] | None, typer.Option(help="Manifest column to score by; may be repeated.")]

GroupBy = Annotated[str, typer.Option(help="What the bootstrap draws: auto, speaker, audio, id or a column.")]

MinN = Annotated[int, typer.Option(min=1, help="Slices of fewer recordings get no figure.")]

Seed = Annotated[int, typer.Option(min=0, help="Of the bootstrap, and of what is drawn in a run.")]

Rows = Annotated[int, typer.Option(min=0, help="Recordings shown in the report.")]

EmbedMb = Annotated[
    float, typer.Option(min=0, help="Megabytes of audio inside the report; the rest is linked.")
]

Seen = Annotated[
    Literal["refuse", "report"],
    typer.Option(help="Rows that an adapter has trained on: refused, or reported beside the scores."),
]


def held(name: str, adapter: Path | None, rows: "Sequence[Row]", seen: str) -> dict[str, Any]:
    """What is written of an adapter's rows that it knows, and said; raises ConfigError unless `report`."""
    from . import heldout

    if seen not in ("refuse", "report"):  # from Python too
        raise ConfigError(f"--seen: expected refuse or report, got {seen!r}")
    if adapter is None:
        return {}
    found = heldout.examine(adapter, rows, refuse=seen == "refuse")
    if told := found.told(len(rows)):
        complain(f"{name}: {told}")
    return found.as_config()


def degradation(name: str) -> Sequence[Any]:
    """The steps of `--degrade`: a preset's name, or a YAML file with a list of steps."""
    from ..audio.degrade import parse

    if Path(name).suffix not in (".yaml", ".yml"):
        return parse(name)
    from ..files import yaml_text

    return parse(yaml_text.read(name))


def options_of(
    slice_by: list[str] | None,
    group_by: str,
    min_n: int,
    seed: int,
    always: Sequence[str] = ("lang", "duration"),
) -> "Options":
    from ..metrics.slices import Options

    columns = tuple(dict.fromkeys((*always, *(slice_by or ()))))
    return Options(group_by=group_by, slice_by=columns, min_n=min_n, seed=seed)


def limits_of(rows: int, embed_mb: float) -> "Limits":
    from .report.page import Limits

    return Limits(rows=rows, media_bytes=int(embed_mb * 1e6))


def outcome(errors: Iterable[str | None]) -> int:
    failed = [error is not None for error in errors]
    return 0 if not any(failed) else 1 if all(failed) else 3
