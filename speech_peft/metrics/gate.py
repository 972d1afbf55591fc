"""Limits on a `scores.json`: what a build or a nightly job asks of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Gate:
    """One figure and its limit."""

    figure: str
    value: float | None
    limit: float
    at_most: bool = True

    @property
    def passed(self) -> bool:
        """A figure that is absent does not pass."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        shown = "n/a" if self.value is None else f"{self.value:.2f}"
        sense = "<=" if self.at_most else ">="
        return f"{'ok  ' if self.passed else 'FAIL'} {self.figure} {shown}, wanted {sense} {self.limit:.2f}"


def gates(
    run: Mapping[str, Any], max_wer: float | None, max_cer: float | None, min_rtfx: float | None
) -> list[Gate]:
    """The limits that were asked for; error rates in percent."""
    asked = (
        ("WER", percent(run, "wer"), max_wer, True),
        ("CER", percent(run, "cer"), max_cer, True),
        ("RTFx", run["rtfx"], min_rtfx, False),
    )
    return [Gate(name, value, limit, low) for name, value, limit, low in asked if limit is not None]


def against(document: Mapping[str, Any], name: str, baseline: Path, max_regression: float) -> Gate:
    """No more than `max_regression` WER points above the same run of an earlier score (else its last run)."""
    earlier = read(baseline)
    if earlier["normaliser"] != document["normaliser"]:
        raise ConfigError(
            f"{baseline}: its normaliser {earlier['normaliser']} is not {document['normaliser']}; "
            "score both again with one of them"
        )
    was = percent(pick(earlier, name if name in earlier["runs"] else None, baseline)[1], "wer")
    if was is None:
        raise ConfigError(f"{baseline}: has no WER, for its references hold no words")
    return Gate(f"WER against {baseline}", percent(document["runs"][name], "wer"), was + max_regression)


def read(path: Path) -> dict[str, Any]:
    """A `scores.json`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as scores.json ({error})") from error
    if not isinstance(document, dict) or not document.get("runs") or "normaliser" not in document:
        raise ConfigError(f"{path}: not a scores.json; expected an object with 'runs' and 'normaliser'")
    return document


def pick(document: Mapping[str, Any], run: str | None, path: Path) -> tuple[str, dict[str, Any]]:
    """A run by its name; without one the last, which is the one in question."""
    name = run or list(document["runs"])[-1]
    if name not in document["runs"]:
        raise ConfigError(f"{path}: no run is called {name!r}. {did_you_mean(name, document['runs'])}")
    return name, document["runs"][name]


def percent(run: Mapping[str, Any], metric: str) -> float | None:
    rate = run[metric]["rate"]
    return None if rate is None else 100 * rate
