"""Recognition measured on a test set, with the numbers as an object: what `bench asr` does, from Python.

found = evaluate("test.jsonl", "runs/telephone", base=True)
found["telephone"].wer.rate, found["base"].wer.rate
print(found)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ..audio import manifest
from ..audio.data_set import rows_in
from ..audio.rows.row import Row
from ..decoders.diffusion.by_device import Count, count_of
from ..errors import ConfigError, did_you_mean
from ..metrics import slices
from ..metrics.normalise import normaliser
from ..terminal.door import complain
from . import harm as harms
from . import own_files, publish
from .options import degradation, held, options_of
from .report.page import Limits
from .runs import asr as benchmark
from .runs.asr import Settings
from .scores import asr as scoring
from .scores.asr import Scored
from .table import table


@dataclass(frozen=True)
class Rate:
    """An error rate and the interval that it lies in; None where nothing was said or drawn from."""

    rate: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SystemScores:
    """What one system scored: the base, or an adapter."""

    name: str
    wer: Rate
    cer: Rate
    n: int
    """Utterances."""
    failed: int
    """Of them, those that could not be transcribed; each counts as wholly deleted."""
    speed: float | None
    """Seconds of sound per second of work."""
    utterances: tuple[Scored, ...] = field(repr=False)
    """Each with its `prediction` (text, pred_text, error, ...) and its errors."""


@dataclass(frozen=True)
class Evaluation(Mapping[str, SystemScores]):
    """What every system scored, by its name; of a single one `wer`, `cer` and `utterances` are its own."""

    scores: Mapping[str, Any] = field(repr=False)
    """All that scores.json holds: slices, comparisons, how it was measured."""
    systems: Mapping[str, SystemScores]

    def __getitem__(self, name: str) -> SystemScores:
        if name not in self.systems:
            raise KeyError(f"no system is called {name!r}. {did_you_mean(name, self.systems)}")
        return self.systems[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.systems)

    def __len__(self) -> int:
        return len(self.systems)

    def __str__(self) -> str:
        return table(dict(self.scores))

    @property
    def wer(self) -> Rate:
        return self._only.wer

    @property
    def cer(self) -> Rate:
        return self._only.cer

    @property
    def utterances(self) -> tuple[Scored, ...]:
        return self._only.utterances

    @property
    def _only(self) -> SystemScores:
        if len(self.systems) > 1:
            names = ", ".join(self.systems)
            raise ConfigError(f"{names} were measured; say whose score is meant: found[{next(iter(self))!r}]")
        return next(iter(self.systems.values()))


def evaluate(
    data: Any,
    adapter: str | Path | Sequence[str | Path] = (),
    *,
    base: bool = False,
    weights: str | None = None,
    context: str | None = None,
    device: str = "cpu",
    engine: Literal["auto", "torch", "ct2"] = "torch",
    beam_size: int = 1,
    decoder: str | Sequence[str] = (),
    steps: Count | None = "auto",
    candidates: Count | None = "auto",
    selection: str = "rover-sum",
    batch_seconds: float | None = None,
    degrade: str | None = None,
    track: int | None = None,
    limit: int | None = None,
    normalizer: str = "auto",
    language: str = "",
    slice_by: Sequence[str] = (),
    group_by: str = "auto",
    min_n: int = 20,
    seed: int = 0,
    seen: str = "refuse",
    harm: str | Path | None = None,
    out: str | Path | None = None,
    limits: Limits | None = None,
) -> Evaluation:
    """Transcribe a test set with adapters, the base, or both, and score what they heard.

    `data` is a manifest, rows, or a Hugging Face data set with a column of sound and one of text. Without an
    adapter it is the base that is measured. With `out` the predictions, scores.json and report.html are left
    there, and `limits` says how large the page may be; all else is what `bench asr --help` says of it. `harm`
    names a manifest of clean speech of other people: what adapters and base make of that is under
    `scores["harm"]`, and in `out/harm`.

    Raises ConfigError for a row without text, an adapter that has trained on rows of the test set (unless
    `seen="report"`), and a name of a column, normaliser or degradation that there is none of.

    >>> evaluate("test.jsonl", "runs/telephone").wer.rate                            # doctest: +SKIP
    0.052
    """
    # What is wrong is said before an hour of work, not after.
    normaliser(normalizer)
    steps, candidates = count_of(steps, "steps"), count_of(candidates, "candidates")
    adapters = [adapter] if isinstance(adapter, str | Path) else adapter
    decoders = [decoder] if isinstance(decoder, str) else decoder
    chosen = benchmark.by_decoder(
        benchmark.systems(base, [str(one) for one in adapters], context, weights), decoders
    )
    listed = manifest.listed(data) if isinstance(data, str | Path) else rows_in(data, "data")
    utterances = benchmark.with_text(listed[:limit])
    slices.known_columns({name for row in utterances for name in row.extra}, (*slice_by, group_by))
    source = Path(data) if isinstance(data, str | Path) else Path(f"<{type(data).__name__}>")
    occasion = benchmark.occasion(source, utterances, degrade, seed, track)
    told = {system.name: held(system.name, system.adapter, utterances, seen) for system in chosen}
    apart: dict[str, Any] = {}
    if harm is not None:
        if not adapters:
            raise ConfigError("harm: the base alone was given, and it is what adapters are held against")
        complain(f"clean speech of other speakers: {harm}")
        alike = {"weights": weights, "context": context, "device": device, "beam_size": beam_size}
        alike |= {"batch_seconds": batch_seconds, "normalizer": normalizer, "language": language}
        alike |= {"limit": limit, "group_by": group_by, "seed": seed, "seen": seen, "limits": limits}
        where = None if out is None else Path(out) / "harm"
        apart["harm"] = harms.summary(
            str(harm), evaluate(harm, adapters, base=True, out=where, **alike).scores
        )
    with _folder(out) as folder:
        heard = _as_asked(utterances, folder, degrade, seed, track)
        settings = Settings(device, beam_size, batch_seconds, engine, steps, candidates, selection)
        for system in chosen:
            complain(f"{system.name}: {len(utterances)} utterances")
            run = benchmark.measure(system, heard, settings)
            config = {**run.config, **told[system.name]}
            benchmark.save(folder / system.name, replace(run, config=config, measured=occasion))
        runs = publish.asr_runs([folder / system.name for system in chosen], normalizer, language)
        options = options_of(list(slice_by), group_by, min_n, seed)
        if out is None:
            found = scoring.scores(runs, normaliser(normalizer), options) | apart
        else:
            found = publish.publish_asr(runs, folder, normalizer, options, limits, apart)
    return Evaluation(found, {run.name: _system(run, found["runs"][run.name]) for run in runs})


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """Where the runs lie: `out`, or a place that is gone afterwards."""
    if out is not None:
        yield Path(out)
        return
    with TemporaryDirectory(prefix="speech_peft-") as folder:
        yield Path(folder)


def _as_asked(
    rows: Sequence[Row], folder: Path, degrade: str | None, seed: int, track: int | None
) -> Sequence[Row]:
    """The rows as they are to be heard: slices and tracks in files of their own, degraded."""
    if degrade is None or track is not None:
        rows = own_files.cut(rows, folder / "clips", track)
    return (
        rows if degrade is None else own_files.degraded(rows, degradation(degrade), seed, folder / "degraded")
    )


def _system(run: scoring.Run, found: Mapping[str, Any]) -> SystemScores:
    wer, cer = (
        Rate(found[metric]["rate"], found[metric]["low"], found[metric]["high"]) for metric in ("wer", "cer")
    )
    return SystemScores(run.name, wer, cer, found["n"], found["failed"], found["rtfx"], run.predictions)
