"""Limits on the scores of restoration, by figure: `estoi=0.8`, and gains over the input: `si_sdr=4`.

| name | what it is |
| --- | --- |
| a figure such as `dnsmos_ovrl` | its mean over the recordings |
| a figure that should be near 0 | the worst recording's, without its sign |
| `wer` | percent, by the judge; `wer_ratio` to the input; `rtf` |
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, did_you_mean
from ..scores.restore import INPUT
from .gate import Gate

_OF_RUN = ("wer", "wer_ratio", "rtf")


def gates(
    document: Mapping[str, Any],
    name: str,
    at_least: Sequence[str] = (),
    at_most: Sequence[str] = (),
    gains: Sequence[str] = (),
) -> list[Gate]:
    """One for each `FIGURE=VALUE`; a gain is over the run `degraded` of the same scores."""
    run = document["runs"][name]
    found = []
    for option, given, most in (("min", at_least, False), ("max", at_most, True)):
        for figure, limit in (_parsed(document, option, one) for one in given):
            found.append(Gate(figure, value(document, run, figure), limit, most))
    for figure, limit in (_parsed(document, "min-gain", one) for one in gains):
        if INPUT not in document["runs"]:
            raise ConfigError(f"--min-gain {figure}: these scores have no run {INPUT!r} to gain over")
        before, after = (value(document, one, figure) for one in (document["runs"][INPUT], run))
        gain = None if before is None or after is None else after - before
        found.append(Gate(f"gain of {figure}", gain, limit, at_most=False))
    return found


def against(
    document: Mapping[str, Any], name: str, before: Mapping[str, Any], baseline: Path, most: float
) -> Gate:
    """The leading figure, not lower by more than `most` than in an earlier run."""
    figure = document["metric"]
    was = value(document, before, figure)
    if was is None:
        raise ConfigError(f"{baseline}: has no {figure}; limit a figure that both have with --min or --max")
    now = value(document, document["runs"][name], figure)
    return Gate(f"{figure} against {baseline}", now, was - most, at_most=False)


def value(document: Mapping[str, Any], run: Mapping[str, Any], figure: str) -> float | None:
    """A figure of a run as limits mean it; None where it was not measured."""
    if figure == "wer":
        return None if not run["wer"] or run["wer"]["rate"] is None else 100 * run["wer"]["rate"]
    if figure in _OF_RUN:
        return run[figure]
    own = run["figures"].get(figure)
    if own is None or not own["n"]:
        return None
    if _figures(document)[figure]["better"] == "near":
        return max(abs(own["min"]), abs(own["max"]))
    return own["mean"]


def _figures(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: about for metric in document["metrics"].values() for name, about in metric["figures"].items()
    }


def _parsed(document: Mapping[str, Any], option: str, given: str) -> tuple[str, float]:
    figure, _, limit = given.partition("=")
    names = list(dict.fromkeys([*_figures(document), *_OF_RUN]))
    if figure not in names:
        raise ConfigError(f"--{option} {given}: there is no figure {figure!r}. {did_you_mean(figure, names)}")
    try:
        return figure, float(limit)
    except ValueError:
        raise ConfigError(f"--{option} {given}: expected FIGURE=NUMBER, such as estoi=0.8") from None
