"""Benchmarks: `python -m speech_peft.bench asr --data test.jsonl --adapter runs/telephone --base -o out`.

    asr     transcribe a manifest with the base, with adapters, or with both, and score what they heard
    score   score predictions that are already there, of any number of runs
    diff    what changed between two runs, broken utterances first
    check   exit 1 when a score is worse than a limit or than an earlier score

Exit codes: 0 done, 1 nothing worked or a limit was exceeded, 2 wrong usage, 3 some recordings failed.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import ConfigError, SpeechPeftError

if TYPE_CHECKING:
    from .metrics.asr import Options, Run
    from .metrics.predictions import Prediction

app = typer.Typer(
    help="Scores with intervals, and one page that shows them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for scores.json, report.html and the runs.")]
Normalizer = Annotated[str, typer.Option(help="none, basic, whisper-en or auto.")]
Language = Annotated[str, typer.Option(help="Language of rows that name none, such as en.")]
SliceBy = Annotated[list[str] | None, typer.Option(help="Manifest column to score by; may be repeated.")]
GroupBy = Annotated[str, typer.Option(help="What the bootstrap draws: auto, speaker, audio, id or a column.")]
MinN = Annotated[int, typer.Option(min=1, help="Slices of fewer utterances get no rate.")]
Seed = Annotated[int, typer.Option(help="Of the bootstrap and of --degrade.")]
Rows = Annotated[int, typer.Option(min=0, help="Utterances shown in the report.")]
EmbedMb = Annotated[
    float, typer.Option(min=0, help="Megabytes of audio inside the report; the rest is linked.")
]


@app.command()
def asr(
    data: Annotated[Path, typer.Option(help="Manifest, or a folder that holds one.")],
    out: Out,
    adapter: Annotated[
        list[str] | None, typer.Option(help="Adapter folder or hub id; may be repeated.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Also the base without adapter.")] = False,
    weights: Annotated[
        str | None, typer.Option(help="Folder, hub id or pkg:PACKAGE/path; the adapter's own if not given.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="full or fit; follows the adapter if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    beam_size: Annotated[int, typer.Option(min=1, help="1 is greedy.")] = 1,
    batch_seconds: Annotated[float | None, typer.Option(help="Seconds of audio decoded at once.")] = None,
    degrade: Annotated[str | None, typer.Option(help="telephone, or a YAML list of steps.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    normalizer: Normalizer = "auto",
    language: Language = "",
    slice_by: SliceBy = None,
    group_by: GroupBy = "auto",
    min_n: MinN = 20,
    seed: Seed = 0,
    rows: Rows = 500,
    embed_mb: EmbedMb = 14.0,
) -> None:
    """Transcribe a manifest with the base, adapters, or both, and score what they heard."""
    from .metrics.normalise import normaliser

    normaliser(normalizer)  # a wrong name is said before an hour of work, not after
    if context not in (None, "full", "fit"):
        raise ConfigError(f"--context: expected full or fit, got {context!r}")
    from .audio import manifest
    from .infer import benchmark
    from .metrics.asr import known_columns

    chosen = benchmark.systems(base, adapter or [], context, weights)
    utterances = benchmark.with_text(manifest.read(data)[:limit])
    known_columns({name for row in utterances for name in row.extra}, (*(slice_by or ()), group_by))
    if degrade is None:
        utterances = benchmark.cut(utterances, out / "clips")
    else:
        utterances = benchmark.degraded(utterances, degradation(degrade), seed, out / "degraded")
    settings = benchmark.Settings(device, beam_size, batch_seconds)
    files = []
    for system in chosen:
        print(f"{system.name}: {len(utterances)} utterances", file=sys.stderr, flush=True)
        timed = benchmark.measure(system, utterances, settings)
        benchmark.save(out / system.name, timed)
        files.append(out / system.name / "preds.jsonl")
    runs = read_runs(files, normalizer, language)
    publish(runs, out, normalizer, _options(slice_by, group_by, min_n, seed), rows, embed_mb)
    raise typer.Exit(_outcome(runs))


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
    """Score predictions that are already there; nothing is run."""
    runs = read_runs(preds, normalizer, language)
    publish(runs, out, normalizer, _options(slice_by, group_by, min_n, seed), rows, embed_mb)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="The earlier preds.jsonl, or its folder.")],
    b: Annotated[Path, typer.Argument(help="The later one.")],
    normalizer: Normalizer = "auto",
    language: Language = "",
    group_by: GroupBy = "auto",
    seed: Seed = 0,
    top: Annotated[int, typer.Option(min=0, help="Utterances listed.")] = 20,
) -> None:
    """What changed between two runs, broken utterances first."""
    from .metrics import asr as metrics
    from .metrics.table import difference

    old, new = runs = read_runs([a, b], normalizer, language)
    options = _options(None, group_by, 1, seed)
    found = metrics.compare(old, new, metrics.grouping(runs, group_by), options, metrics.headline(runs))
    print(difference(found))
    before = {item.prediction.id: item for item in old.scored}
    both = [(before[item.prediction.id], item) for item in new.scored if item.prediction.id in before]
    both.sort(key=lambda pair: pair[0].words.errors - pair[1].words.errors)
    for was, now in both[:top]:
        if was.words.errors != now.words.errors:
            print(f"{now.words.errors - was.words.errors:+4d}  {now.prediction.id}")
            print(f"      said  {now.prediction.text}")
            print(f"      {old.name}: {was.prediction.pred_text}")
            print(f"      {new.name}: {now.prediction.pred_text}")


@app.command()
def check(
    scores: Annotated[Path, typer.Argument(help="scores.json of `asr` or `score`.")],
    run: Annotated[str | None, typer.Option(help="The run that counts; the last if not given.")] = None,
    max_wer: Annotated[float | None, typer.Option(help="Percent.")] = None,
    max_cer: Annotated[float | None, typer.Option(help="Percent.")] = None,
    min_rtfx: Annotated[float | None, typer.Option(help="Seconds of audio per second.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="An earlier scores.json.")] = None,
    max_regression: Annotated[float, typer.Option(help="WER points above the baseline.")] = 0.0,
) -> None:
    """Exit 1 when a score is worse than a limit or than an earlier score."""
    from .metrics import gate

    document = gate.read(scores)
    name, now = gate.pick(document, run, scores)
    gates = gate.gates(now, max_wer, max_cer, min_rtfx)
    if baseline is not None:
        gates.append(gate.against(document, name, baseline, max_regression))
    if not gates:
        raise ConfigError("nothing to check: give --max-wer, --max-cer, --min-rtfx or --baseline")
    for one in gates:
        print(f"{one} ({name})")
    raise typer.Exit(int(not all(one.passed for one in gates)))


def read_runs(paths: Sequence[Path], normalizer: str = "auto", language: str = "") -> list["Run"]:
    """Scored runs from `preds.jsonl` files, named by their folders, with the `run.json` beside them."""
    from .metrics import asr as metrics
    from .metrics import predictions
    from .metrics.normalise import normaliser

    runs: list[Run] = []
    for path in paths:
        file = path / "preds.jsonl" if path.is_dir() else path
        scored = metrics.score(predictions.read(file), normaliser(normalizer), language)
        name = file.absolute().parent.name if file.name == "preds.jsonl" else file.stem
        beside = file.with_name("run.json")
        about = json.loads(beside.read_text()) if file.name == "preds.jsonl" and beside.is_file() else {}
        if any(run.name == name for run in runs):
            name = f"{name}-{len(runs) + 1}"
        runs.append(metrics.Run(name, scored, **about))
    return runs


def publish(
    runs: Sequence["Run"],
    out: Path,
    normalizer: str = "auto",
    options: "Options | None" = None,
    rows: int = 500,
    embed_mb: float = 14.0,
) -> dict[str, Any]:
    """Write `scores.json` and `report.html`, print the table, and return the scores."""
    from .audio import io
    from .audio.atomic import write_text
    from .metrics import asr as metrics
    from .metrics.normalise import normaliser
    from .metrics.report import Limits, render
    from .metrics.table import table

    def load(prediction: "Prediction") -> tuple[Any, int]:
        clip = io.load(prediction.audio_filepath, 16_000)
        return clip.samples, clip.sample_rate

    found = metrics.scores(runs, normaliser(normalizer), options)
    write_text(out / "scores.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    limits = Limits(rows=rows, media_bytes=int(embed_mb * 1e6))
    write_text(out / "report.html", render(found, runs, out, load, limits=limits))
    print(table(found))
    print(out / "report.html")
    return found


def degradation(name: str) -> Sequence[Any]:
    """The steps of `--degrade`: a preset's name, or a YAML file with a list of steps."""
    from .audio.degrade import parse

    if Path(name).suffix not in (".yaml", ".yml"):
        return parse(name)
    import yaml

    try:
        return parse(yaml.safe_load(Path(name).read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--degrade {name}: {error}") from error


def _options(slice_by: list[str] | None, group_by: str, min_n: int, seed: int) -> "Options":
    from .metrics.asr import Options

    columns = tuple(dict.fromkeys(("lang", "duration", *(slice_by or ()))))
    return Options(group_by=group_by, slice_by=columns, min_n=min_n, seed=seed)


def _outcome(runs: Sequence["Run"]) -> int:
    failed = [item.prediction.error is not None for run in runs for item in run.scored]
    return 0 if not any(failed) else 1 if all(failed) else 3


def main(argv: list[str] | None = None) -> int:
    try:
        app(argv)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except SpeechPeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
