"""`python -m speech_peft.bench restore`: pairs of recordings measured, judged and made to be heard."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..folders.options import Device, Track, new_folder
from ..terminal.door import complain

NO_JUDGE = "none"


def restore(
    data: Annotated[
        Path, typer.Option(help="Manifest or folder: degraded with target_audio, or clean for --degrade.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="Folder for scores.json, report.html and the runs.", callback=new_folder
        ),
    ],
    adapter: Annotated[
        list[str] | None, typer.Option(help="FOLDER or NAME=FOLDER (or hub id) to run; may be repeated.")
    ] = None,
    restored: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of files that something made of the input; may be repeated."),
    ] = None,
    degrade: Annotated[
        str | None, typer.Option(help="A preset such as restoration, or a YAML list of steps.")
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(help="Names with commas, `default` for all that need not be asked for: default,pesq"),
    ] = "default",
    judge: Annotated[
        str | None,
        typer.Option(
            help="Weights of the unadapted Whisper that hears words; the embedded if not given; none."
        ),
    ] = None,
    guard: Annotated[str, typer.Option(help="full, sound (without words) or off.")] = "full",
    strength: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    steps: Annotated[int | None, typer.Option("--steps", "-T", min=1, help="Rounds of a decoder.")] = None,
    track: Track = None,
    device: Device = "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    normalizer: Annotated[
        str, typer.Option(help="none, basic, marks, whisper-en, english or auto.")
    ] = "auto",
    language: Annotated[str, typer.Option(help="Language of rows that name none, such as en.")] = "",
    slice_by: Annotated[list[str] | None, typer.Option(help="Manifest column; may be repeated.")] = None,
    group_by: Annotated[str, typer.Option(help="What the bootstrap draws: auto, speaker, id, ...")] = "auto",
    min_n: Annotated[int, typer.Option(min=1, help="Slices of fewer recordings get no figure.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap, --degrade and the decoder.")] = 0,
    rows: Annotated[int, typer.Option(min=0, help="Recordings shown in the report.")] = 200,
    embed_mb: Annotated[float, typer.Option(min=0, help="Megabytes of audio inside the report.")] = 14.0,
    seen: Annotated[
        str, typer.Option(help="Of rows that an adapter has trained on: refuse, or report beside the scores.")
    ] = "refuse",
) -> None:
    """Measure restorers, or files that others made, against their input and the clean recordings."""
    from ..audio import manifest
    from ..metrics import restoration
    from ..metrics.normalise import normaliser
    from ..metrics.slices import Options, known_columns
    from ..opening.loading import DEFAULT_WEIGHTS
    from .options import degradation, held
    from .publish import publish_restorations
    from .report.page import Limits
    from .runs import restore as benchmark
    from .runs.asr import occasion as occasion_of

    normaliser(normalizer)
    wanted = restoration.chosen(metrics)
    for metric in wanted:
        if metric.opt_in and metric.notice:
            complain(f"{metric.name}: {metric.notice}")
    if guard not in ("full", "sound", "off"):
        raise ConfigError(f"--guard: expected full, sound or off, got {guard!r}")
    listed = list(manifest.listed(data)[:limit])
    columns = tuple(dict.fromkeys(("lang", "duration", *(slice_by or ()))))
    known_columns({name for row in listed for name in row.extra}, (*columns, group_by))
    steps_of = None if degrade is None else degradation(degrade)
    settings = benchmark.Settings(device, guard, strength, steps, seed, normalizer, language)
    known = {folder: held(folder, _folder(folder), listed, seen) for _, folder in named(adapter or [], set())}
    config: dict[str, dict[str, Any]] = {}
    recordings = benchmark.pairs(listed, steps_of, seed, out, track)
    made = benchmark.untouched(recordings)
    for name, folder in named(adapter or [], {one.name for one in made}):
        complain(f"{name}: {len(recordings)} recordings")
        config[name] = known[folder]
        made.append(benchmark.restored(name, folder, recordings, out / name / "audio", settings))
    for name, folder in named(restored or [], {one.name for one in made}):
        made.append(benchmark.from_folder(name, Path(folder), recordings))
    heard = None
    occasion = occasion_of(data, recordings, degrade, seed, track)
    if judge != NO_JUDGE and any(metric.name == "wer" for metric in wanted):
        complain("judge: hears all of it")
        heard = benchmark.judge(judge, settings)(benchmark.spoken(made, recordings, settings))
        occasion |= {"judge": judge or DEFAULT_WEIGHTS}
    runs = []
    for one in made:
        complain(f"{one.name}: measured")
        run = benchmark.measure(one, recordings, wanted, heard, settings)
        runs.append(replace(run, config={**run.config, **config.get(one.name, {})}, measured=occasion))
        benchmark.save(out / one.name, runs[-1])
    options = Options(group_by=group_by, slice_by=columns, min_n=min_n, seed=seed)
    publish_restorations(runs, out, wanted, options, Limits(rows=rows, media_bytes=int(embed_mb * 1e6)))
    failed = [item.error is not None for run in runs for item in run.predictions]
    raise typer.Exit(0 if not any(failed) else 1 if all(failed) else 3)


def named(given: Sequence[str], taken: set[str]) -> list[tuple[str, str]]:
    """`NAME=FOLDER` or `FOLDER` as pairs; names that are taken get a number, the reserved ones too."""
    from .runs.asr import free_name

    found = []
    for one in given:
        name, equals, folder = one.partition("=")
        found.append((free_name(name, taken), folder) if equals else (free_name(one, taken), one))
    return found


def _folder(adapter: str) -> Path:
    """Where an adapter lies; one that cannot be had keeps its name, for what opens it says why."""
    from ..core.saved.hub import locate

    try:
        return locate(adapter)
    except ConfigError:
        return Path(adapter)
