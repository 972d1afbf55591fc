"""`speech-peft bench check`: a score that is too bad ends with exit code 1."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..terminal.door import line


def check(
    scores: Annotated[Path, typer.Argument(help="scores.json of any benchmark, or of `score`.")],
    run: Annotated[str | None, typer.Option(help="The run that counts; the last if not given.")] = None,
    max_wer: Annotated[float | None, typer.Option(help="Percent.")] = None,
    max_cer: Annotated[float | None, typer.Option(help="Percent.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Percent.")] = None,
    min_macro_f1: Annotated[float | None, typer.Option(help="Percent.")] = None,
    min_map: Annotated[float | None, typer.Option(help="Percent.")] = None,
    max_ece: Annotated[float | None, typer.Option(help="Percent.")] = None,
    min_rtfx: Annotated[float | None, typer.Option(help="Seconds of audio per second.")] = None,
    least: Annotated[
        list[str] | None,
        typer.Option("--min", help="Of restoration: FIGURE=VALUE, such as estoi=0.8; may be repeated."),
    ] = None,
    most: Annotated[
        list[str] | None, typer.Option("--max", help="The same: wer_ratio=1, rtf=0.05, length_error=1.")
    ] = None,
    min_gain: Annotated[
        list[str] | None, typer.Option(help="FIGURE=VALUE over the input: si_sdr=4, dnsmos_ovrl=-0.02.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="An earlier scores.json.")] = None,
    max_regression: Annotated[
        float, typer.Option(help="Points (of restoration: of its leading figure) worse than the baseline.")
    ] = 0.0,
) -> None:
    """Exit 1 when a score is worse than a limit or than an earlier score."""
    from .gates import limits as gate
    from .gates import restoration as restoration_gate

    document = gate.read(scores)
    name, now = gate.pick(document, run, scores)
    limits = {
        "max_wer": max_wer,
        "max_cer": max_cer,
        "min_accuracy": min_accuracy,
        "min_macro_f1": min_macro_f1,
        "min_map": min_map,
        "max_ece": max_ece,
        "min_rtfx": min_rtfx,
    }
    gates = gate.gates(now, limits, document["task"])
    if least or most or min_gain:
        if document["task"] != "restore":
            raise ConfigError(
                f"--min, --max and --min-gain limit figures of restoration; these are of {document['task']}"
            )
        gates += restoration_gate.gates(document, name, least or (), most or (), min_gain or ())
    if baseline is not None:
        gates.append(gate.against(document, name, baseline, max_regression))
    if not gates:
        raise ConfigError(
            "nothing to check: give --baseline, or a limit such as --max-wer or --min estoi=0.8"
        )
    for one in gates:
        line(f"{one} ({name})")
    raise typer.Exit(int(not all(one.passed for one in gates)))
