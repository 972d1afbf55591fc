"""Options of several benchmarks, and what they mean."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..folders.options import new_folder
from ..terminal.door import complain

if TYPE_CHECKING:
    from ..audio.manifest import Row
    from ..metrics.slices import Options
    from .report.page import Limits


Out = Annotated[
    Path,
    typer.Option(
        "-o", "--out", help="Folder for scores.json, report.html and the runs.", callback=new_folder
    ),
]

Normalizer = Annotated[str, typer.Option(help="none, basic, marks, whisper-en, english or auto.")]

Language = Annotated[str, typer.Option(help="Language of rows that name none, such as en.")]

SliceBy = Annotated[list[str] | None, typer.Option(help="Manifest column to score by; may be repeated.")]

GroupBy = Annotated[str, typer.Option(help="What the bootstrap draws: auto, speaker, audio, id or a column.")]

MinN = Annotated[int, typer.Option(min=1, help="Slices of fewer utterances get no rate.")]

Seed = Annotated[int, typer.Option(help="Of the bootstrap and of --degrade.")]

Rows = Annotated[int, typer.Option(min=0, help="Utterances shown in the report.")]

EmbedMb = Annotated[
    float, typer.Option(min=0, help="Megabytes of audio inside the report; the rest is linked.")
]

Seen = Annotated[
    str, typer.Option(help="Of rows that an adapter has trained on: refuse, or report beside the scores.")
]


def held(name: str, adapter: Path | None, rows: "Sequence[Row]", seen: str) -> dict[str, Any]:
    """What is written of an adapter's rows that it knows, and said; raises ConfigError unless `report`."""
    from . import heldout

    if seen not in ("refuse", "report"):
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
