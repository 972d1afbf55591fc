"""speech-peft generate OUT.wav --adapter FOLDER --like REC.wav --at 0.5-0.7: this kind of sound, then."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from ..folders import options as cli
from ..terminal.door import line
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from ..core.listening.moments import Interval

app = new_app()


@app.command(no_args_is_help=True)
def generate(
    out: Annotated[Path, typer.Argument(help="The recording to write; its suffix names the format.")],
    adapter: Annotated[
        str | None, typer.Option(help="Adapter folder or hub id, as generate/foley makes it.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "--model", help=f"The mel diffusion: {cli.ADDRESS}; the adapter's own."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="A class of the model; none if not given.")] = None,
    like: Annotated[
        Path | None, typer.Option(help="A recording of what it is to sound like; adapters listen to it.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="START-END", help="Seconds in which it sounds: 0.5-0.7; may be repeated."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="How long the recording is.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise; another one is another sound.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="In which noise becomes sound.")] = 25,
    guidance: Annotated[
        float, typer.Option(min=0.0, help="How far it goes beyond what comes unasked; 1 is not at all.")
    ] = 2.0,
    overwrite: cli.Overwrite = False,
    device: cli.Device = "auto",
    threads: cli.Threads = None,
    offline: cli.Offline = False,
) -> None:
    """One sound out of noise, of a kind and at moments that are given."""
    if not adapter and not weights:
        raise ConfigError("--adapter: give the folder of an adapter, or --weights for a mel diffusion alone")
    intervals = [interval_of(text) for text in at] if at else None
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already; give another name, or --overwrite")
    from ..audio import io
    from ..decoders.mel_diffusion.sample import Sampling
    from .generator import Generator

    cli.use_threads(threads)
    generator = Generator(adapter, weights, cli.found_device(device), offline)
    heard = None if like is None else io.load(like, generator.sample_rate).samples
    how = Sampling(steps=steps, guidance=guidance)
    samples = generator(kind, like=heard, intervals=intervals, seconds=seconds, seed=seed, how=how)
    io.save(out, samples, generator.sample_rate)
    line(f"{out}: {len(samples) / generator.sample_rate:.2f} s")


def interval_of(text: str) -> "Interval":
    """Seconds written as 0.5-0.7; raises ConfigError for anything else."""
    start, dash, end = text.partition("-")
    try:
        found = float(start), float(end)
    except ValueError:
        found = (0.0, 0.0)
    if not dash or not 0 <= found[0] < found[1] < float("inf"):
        raise ConfigError(f"--at {text}: expected a beginning and a later end in seconds, such as 0.5-0.7")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "generate")


if __name__ == "__main__":
    raise SystemExit(main())
