"""The head of a report: what was measured, of which systems, when and on which machine.

>>> head = of_runs("Speech recognition", runs, "utterances")      # doctest: +SKIP
>>> head.title                                                    # doctest: +SKIP
'base and phone on asterisk-en/test, degraded: telephone'

What nobody wrote down (older runs, predictions of other programs) is said to be unknown. All of it comes from
files that anybody may have written, so nothing is taken to have a type.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from ...predictions.run import Run

UNKNOWN = "not recorded"
_NAMED = 3  # systems in a title
_DIGITS = 12  # of a digest; all of them are among the settings below


@dataclass(frozen=True)
class System:
    """What one run was made with."""

    name: str
    weights: str
    adapter: str
    digest: str


@dataclass(frozen=True)
class Head:
    """What stands above the first table."""

    kind: str
    """`Speech recognition`"""
    title: str
    """What tells this report from another of its kind."""
    facts: tuple[tuple[str, str], ...] = ()
    """`("Rows", "60 utterances, 3.1 minutes")`"""
    systems: tuple[System, ...] = ()
    date: str = ""
    """The day, for the name of the browser's tab."""


def of_runs(
    kind: str,
    runs: Sequence[Run[Any]],
    unit: str,
    title: str | None = None,
    aside: Sequence[str] = (),
) -> Head:
    """The head of a benchmark's report; `title` replaces the one that is made of data and the names of runs,
    but for those `aside`."""
    seconds = max((sum(_duration(item) for item in run.predictions) for run in runs), default=0.0)
    count = max((len(run.predictions) for run in runs), default=0)
    much = f"{count:,} {unit}, {_length(seconds)}"
    facts = [
        ("Manifest", _by_run(runs, lambda run: _text(run.measured.get("manifest")))),
        ("Rows", much),
        ("Sound", _by_run(runs, _sound)),
        ("Date", _by_run(runs, lambda run: when(run.measured.get("date")))),
        ("Version", _by_run(runs, lambda run: _text(run.measured.get("version")))),
        ("Machine", _by_run(runs, _machine)),
    ]
    if any(run.measured.get("judge") for run in runs):
        facts.insert(3, ("Judge", _by_run(runs, lambda run: _text(run.measured.get("judge")))))
    return Head(
        kind,
        _title([run for run in runs if run.name not in aside], count, unit) if title is None else title,
        tuple(facts),
        tuple(system(run) for run in runs),
        max((when(run.measured.get("date"))[:10] for run in runs), default=""),
    )


def when(date: Any) -> str:
    """`2026-05-01 13:05 UTC` of a time in ISO's form; what is none, as it is."""
    try:
        return f"{datetime.fromisoformat(str(date)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return _text(date)


def system(run: Run[Any]) -> System:
    """What a run says of the model behind it."""
    about = run.config.get("about")
    config = {**run.config, **(about if isinstance(about, Mapping) else {})}
    adapters = next((config[name] for name in ("adapters", "adapter", "folder") if config.get(name)), "")
    weights = config.get("model") or config.get("weights") or ""
    digest = config.get("adapters_sha256") or config.get("adapter_sha256") or ""
    short = digest.values() if isinstance(digest, Mapping) else [digest]
    return System(
        run.name, _text(weights), _text(adapters), _listed(str(one)[:_DIGITS] for one in short if one)
    )


def _title(runs: Sequence[Run[Any]], count: int, unit: str) -> str:
    names = [run.name for run in runs]
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    *before, last = [*names[:_NAMED], *more] or ["nothing"]
    systems = f"{', '.join(before)} and {last}" if before else last
    places = {str(run.measured["manifest"]) for run in runs if run.measured.get("manifest")}
    data = _short(places.pop()) if len(places) == 1 else f"{count:,} {unit}"
    how = {str(run.measured.get("degradation") or "") for run in runs}
    worse = _short(next(iter(how))) if len(how) == 1 and any(how) else ""
    return f"{systems} on {data}" + (f", degraded: {worse}" if worse else "")


def _short(path: str) -> str:
    """`asterisk-en/test` of a manifest's path."""
    parts = PurePath(path).with_suffix("").parts if PurePath(path).suffix else PurePath(path).parts
    return "/".join(part.strip("/") for part in parts[-2:] if part.strip("/.")) or path


def _by_run(runs: Sequence[Run[Any]], fact: Callable[[Run[Any]], str]) -> str:
    """What all runs agree in, or each run's own."""
    told = {run.name: fact(run) or UNKNOWN for run in runs}
    if len(set(told.values())) <= 1:
        return next(iter(told.values()), UNKNOWN)
    return "; ".join(f"{name}: {value}" for name, value in told.items())


def _sound(run: Run[Any]) -> str:
    if not run.measured:
        return ""
    degradation, track = run.measured.get("degradation"), run.measured.get("track")
    told = f"degraded: {degradation}, seed {run.measured.get('seed')}" if degradation else "as recorded"
    return told + ("" if track is None else f", track {track}")


def _machine(run: Run[Any]) -> str:
    found = run.hardware
    told = [found.get("processor"), found.get("system")]
    if found.get("device") and found["device"] not in (*told, "cpu"):
        told.insert(0, found["device"])
    told += [_several(found[f"{name}s"], name) for name in ("core", "thread") if found.get(f"{name}s")]
    told += [f"{name} {found[name]}" for name in ("torch", "python") if found.get(name)]
    return ", ".join(str(one) for one in told if one)


def _several(count: Any, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return _listed(str(one) for one in value.values())
    return "" if value is None else str(value)


def _listed(values: Iterable[str]) -> str:
    """Different ones once, the first few by name."""
    found = list(dict.fromkeys(values))
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return ", ".join([*found[:_NAMED], *more])


def _duration(item: Any) -> float:
    return getattr(item, "duration", None) or getattr(getattr(item, "prediction", None), "duration", 0.0)


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
