"""`speech-peft bench restore`: pairs of recordings measured, judged and made to be heard."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..folders.options import Device, Threads, Track, found_device, use_threads
from ..terminal.door import complain
from . import options

NO_JUDGE = "none"


def restore(
    data: Annotated[
        Path, typer.Option(help="Manifest or folder: degraded with target_audio, or clean for --degrade.")
    ],
    out: options.Out,
    adapter: options.Adapters = None,
    restored: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of files that something made of the input; may be repeated."),
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
    guard: options.Guard = "full",
    strength: Annotated[
        float, typer.Option("--strength", "--wet", min=0.0, max=1.0, help="1 all restored, 0 as it came.")
    ] = 1.0,
    steps: options.Steps = None,
    track: Track = None,
    device: Device = "auto",
    threads: Threads = None,
    degrade: options.Degrade = None,
    limit: options.Limit = None,
    normalizer: options.Normalizer = "auto",
    language: options.Language = "",
    slice_by: options.SliceBy = None,
    group_by: options.GroupBy = "auto",
    min_n: options.MinN = 20,
    seed: options.Seed = 0,
    rows: options.Rows = 200,
    embed_mb: options.EmbedMb = 14.0,
    seen: options.Seen = "refuse",
) -> None:
    """Measure restorers, or files that others made, against their input and the clean recordings."""
    from ..audio import manifest
    from ..metrics import restoration
    from ..metrics.normalise import normaliser
    from ..metrics.slices import Options, known_columns
    from ..opening.loading import DEFAULT_WEIGHTS
    from .publish import publish_restorations
    from .report.page import Limits
    from .runs import restore as benchmark
    from .runs.asr import occasion as occasion_of

    normaliser(normalizer)
    wanted = restoration.chosen(metrics)
    for metric in wanted:
        if metric.opt_in and metric.notice:
            complain(f"{metric.name}: {metric.notice}")
    listed = list(manifest.listed(data)[:limit])
    columns = tuple(dict.fromkeys(("lang", "duration", *(slice_by or ()))))
    known_columns({name for row in listed for name in row.extra}, (*columns, group_by))
    steps_of = None if degrade is None else options.degradation(degrade)
    use_threads(threads)
    settings = benchmark.Settings(found_device(device), guard, strength, steps, seed, normalizer, language)
    known = {
        folder: options.held(folder, _folder(folder), listed, seen)
        for _, folder in named(adapter or [], set())
    }
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
    sliced = Options(group_by=group_by, slice_by=columns, min_n=min_n, seed=seed)
    publish_restorations(runs, out, wanted, sliced, Limits(rows=rows, media_bytes=int(embed_mb * 1e6)))
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
