"""Benchmarks: `speech-peft bench asr --data test.jsonl --adapter runs/telephone --base -o out`.

    asr       transcribe a manifest with the base, with adapters, or with both, and score what they heard
    classify  classify labelled clips with adapters, or each fold of them with an adapter of its own
    restore   restore recordings or take what was made of them, and measure it against input and clean ones
    score     score predictions that are already there, of any number of runs
    diff      what changed between two runs, what broke first
    check     exit 1 when a score is worse than a limit or than an earlier score

Exit codes: 0 done, 1 nothing worked or a limit was exceeded, 2 wrong usage, 3 some recordings failed.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..folders.options import (
    BeamSize,
    Context,
    Device,
    Engine,
    Passes,
    Selection,
    Texts,
    Threads,
    Track,
    found_device,
    use_threads,
)
from ..terminal.door import complain, printable, say
from ..terminal.program import new_app, run
from .check import check
from .options import (
    Adapters,
    Data,
    Degrade,
    EmbedMb,
    GroupBy,
    Language,
    Limit,
    MinN,
    Normalizer,
    Out,
    Rows,
    Seed,
    Seen,
    SliceBy,
    Weights,
    degradation,
    limits_of,
    options_of,
    outcome,
)
from .restore import restore

app = new_app("Scores with intervals, and one page that shows them.")


@app.command()
def asr(
    data: Data,
    out: Out,
    adapter: Adapters = None,
    base: Annotated[bool, typer.Option("--base", help="Also the base without adapter.")] = False,
    weights: Weights = None,
    context: Context = None,
    track: Track = None,
    device: Device = "auto",
    threads: Threads = None,
    engine: Engine = "torch",
    beam_size: BeamSize = 1,
    decoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[autoregressive|diffusion|verified]",
            help="Of an adapter that writes or drafts by itself; a column each; may be repeated.",
        ),
    ] = None,
    steps: Passes = "auto",
    candidates: Texts = "auto",
    selection: Selection = "rover-sum",
    batch_seconds: Annotated[float | None, typer.Option(help="Seconds of audio decoded at once.")] = None,
    degrade: Degrade = None,
    limit: Limit = None,
    normalizer: Normalizer = "auto",
    language: Language = "",
    slice_by: SliceBy = None,
    group_by: GroupBy = "auto",
    min_n: MinN = 20,
    seed: Seed = 0,
    rows: Rows = 500,
    embed_mb: EmbedMb = 14.0,
    seen: Seen = "refuse",
    harm: Annotated[
        Path | None, typer.Option(help="Clean speech of other people: what adapters lose there.")
    ] = None,
) -> None:
    """Transcribe a manifest with the base, adapters, or both, and score what they heard."""
    from .evaluate import evaluate

    use_threads(threads)
    found = evaluate(
        data,
        adapter or (),
        base=base,
        weights=weights,
        context=context,
        device=found_device(device),
        engine=engine,
        beam_size=beam_size,
        decoder=decoder or (),
        steps=steps,
        candidates=candidates,
        selection=selection,
        batch_seconds=batch_seconds,
        degrade=degrade,
        track=track,
        limit=limit,
        normalizer=normalizer,
        language=language,
        slice_by=slice_by or (),
        group_by=group_by,
        min_n=min_n,
        seed=seed,
        seen=seen,
        harm=harm,
        out=out,
        limits=limits_of(rows, embed_mb),
    )
    errors = (one.prediction.error for system in found.values() for one in system.utterances)
    raise typer.Exit(outcome(errors))


@app.command()
def classify(
    data: Annotated[Path, typer.Option(help="Manifest with labels, or a folder of class folders.")],
    out: Out,
    adapter: Adapters = None,
    folds: Annotated[
        list[str] | None,
        typer.Option(
            help="Cross-validation: [NAME=]PATTERN with {fold}, an adapter a fold; may be repeated."
        ),
    ] = None,
    fold_column: Annotated[str, typer.Option(help="Manifest column of the folds.")] = "fold",
    where: Annotated[
        list[str] | None, typer.Option(help="Only these rows: COLUMN=VALUE[,VALUE...]; may be repeated.")
    ] = None,
    weights: Weights = None,
    track: Track = None,
    device: Device = "auto",
    threads: Threads = None,
    window: Annotated[float | None, typer.Option(help="Seconds heard at once.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds from window to window.")] = None,
    batch_seconds: Annotated[float | None, typer.Option(help="Seconds of audio heard at once.")] = None,
    degrade: Degrade = None,
    limit: Limit = None,
    slice_by: SliceBy = None,
    group_by: GroupBy = "auto",
    min_n: MinN = 20,
    seed: Seed = 0,
    rows: Rows = 500,
    embed_mb: EmbedMb = 14.0,
) -> None:
    """Classify labelled clips with adapters that have not seen them, and score what they heard."""
    from ..audio import manifest
    from ..audio.rows import labels, select
    from ..metrics.slices import known_columns
    from . import own_files, publish
    from .runs import asr as benchmark
    from .runs import classify as class_benchmark

    clips = list(select.where(manifest.listed(data), class_benchmark.wanted(where or ()), data)[:limit])
    known_columns({"label", *(name for row in clips for name in row.extra)}, (*(slice_by or ()), group_by))
    chosen = class_benchmark.systems(clips, adapter or [], folds or [], fold_column)
    labels.labelled(clips, data, multi_label=class_benchmark.multi_label(chosen))
    held_out = class_benchmark.check(chosen)
    for name, answer in held_out.items():
        if answer != "ok":
            complain(f"{name}: cannot tell whether it has seen these clips: {answer}")
    if track is not None:
        clips = own_files.cut(clips, out / "clips", track)
        chosen = class_benchmark.heard_as(chosen, clips)
    if degrade is not None:
        worse = own_files.degraded(clips, degradation(degrade), seed, out / "degraded")
        chosen = class_benchmark.heard_as(chosen, worse)
    use_threads(threads)
    settings = class_benchmark.Settings(found_device(device), weights, window, hop, batch_seconds)
    occasion = benchmark.occasion(data, clips, degrade, seed, track)
    files = []
    for system in chosen:
        complain(f"{system.name}: {len(clips)} clips")
        run = class_benchmark.measure(system, settings, held_out[system.name])
        class_benchmark.save(out / system.name, replace(run, measured=occasion))
        files.append(out / system.name)
    runs = publish.class_runs(files)
    options = options_of(slice_by, group_by, min_n, seed, ("duration",))
    publish.publish_classes(runs, out, options, limits_of(rows, embed_mb))
    raise typer.Exit(outcome(item.error for run in runs for item in run.predictions))


app.command()(restore)


@app.command()
def score(
    preds: Annotated[list[Path], typer.Argument(help="preds.jsonl files, or folders that hold one.")],
    out: Out,
    normalizer: Normalizer = "auto",
    language: Language = "",
    slice_by: SliceBy = None,
    group_by: GroupBy = "auto",
    min_n: MinN = 20,
    seed: Seed = 0,
    rows: Rows = 500,
    embed_mb: EmbedMb = 14.0,
) -> None:
    """Score predictions that are already there, of words, classes or restorations; nothing is run."""
    from . import publish

    task = publish.task_of(preds)
    if task == "restore":
        options = options_of(slice_by, group_by, min_n, seed)
        found = publish.restoration_runs(preds, normalizer, language)
        publish.publish_restorations(found, out, None, options, limits_of(rows, embed_mb))
        return
    if task == "classify":
        options = options_of(slice_by, group_by, min_n, seed, ("duration",))
        publish.publish_classes(publish.class_runs(preds), out, options, limits_of(rows, embed_mb))
        return
    options = options_of(slice_by, group_by, min_n, seed)
    runs = publish.asr_runs(preds, normalizer, language)
    publish.publish_asr(runs, out, normalizer, options, limits_of(rows, embed_mb))


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="The earlier preds.jsonl, or its folder.")],
    b: Annotated[Path, typer.Argument(help="The later one.")],
    normalizer: Normalizer = "auto",
    language: Language = "",
    group_by: GroupBy = "auto",
    seed: Seed = 0,
    top: Annotated[int, typer.Option(min=0, help="Recordings listed.")] = 20,
) -> None:
    """What changed between two runs, what broke first."""
    from . import differences, publish

    options = options_of(None, group_by, 1, seed)
    task = publish.task_of([a, b])
    if task == "restore":
        before, after = publish.restoration_runs([a, b], normalizer, language)
        lines = differences.of_restorations(before, after, options, top)
    elif task == "classify":
        old, new = publish.class_runs([a, b])
        lines = differences.of_classes(old, new, options, top)
    else:
        was, now = publish.asr_runs([a, b], normalizer, language)
        lines = differences.of_words(was, now, options, top)
    say("\n".join(map(printable, lines)))


app.command()(check)


def main(argv: list[str] | None = None) -> int:
    """Exit codes as above, and 130 when interrupted."""
    return run(app, argv, "bench")


if __name__ == "__main__":
    raise SystemExit(main())
