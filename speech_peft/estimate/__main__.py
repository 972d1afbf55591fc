"""speech-peft estimate MANIFEST --adapter A: hours, machines, bytes and money, measured on a minute of it."""

import shutil
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from ..folders import options as cli
from ..terminal.door import say
from ..terminal.program import new_app, run

app = new_app()


@app.command(no_args_is_help=True)
def estimate(
    inputs: cli.Inputs,
    adapter: Annotated[str | None, typer.Option(help="Adapter folder or hub id.")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", "--model", help=f"The frozen model: {cli.ADDRESS}.")
    ] = None,
    verb: Annotated[
        Literal["transcribe", "classify", "restore"], typer.Option(help="What is to be done.")
    ] = "transcribe",
    seconds: Annotated[float, typer.Option(min=1.0, help="Of audio that are tried.")] = 60.0,
    hours: Annotated[
        float | None, typer.Option(min=0.0, help="Of audio like this; by default the manifest's.")
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, help="In which all is to be done.")] = 7.0,
    processes: Annotated[
        int, typer.Option(min=1, help="That a machine runs at once, each as fast as the one measured.")
    ] = 1,
    machine_price: Annotated[float, typer.Option(min=0.0, help="Of a machine, an hour.")] = 0.0,
    storage_price: Annotated[float, typer.Option(min=0.0, help="Of a gigabyte, a month.")] = 0.0,
    transfer_price: Annotated[float, typer.Option(min=0.0, help="Of a gigabyte that is read.")] = 0.0,
    device: cli.Device = "auto",
    threads: cli.Threads = None,
    batch_seconds: cli.BatchSeconds = 600.0,
    offline: cli.Offline = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one object, for programs.")] = False,
) -> None:
    """What a manifest takes and costs, by the speed of this machine on a minute of it."""
    from ..audio.io import AUDIO_SUFFIXES
    from ..errors import ConfigError
    from ..files import json_text
    from .measured import Prices, measured, sampled, scratch
    from .measured import estimate as estimated

    if verb != "transcribe" and not adapter:
        raise ConfigError(f"--adapter: {verb} needs the folder of a trained adapter")
    sample = sampled(inputs, AUDIO_SUFFIXES, seconds)
    cli.use_threads(threads)
    folder = scratch()
    opening: dict[str, Any] = {"device": cli.found_device(device), "offline": offline}
    opening["batch_seconds"] = batch_seconds
    try:
        speed = measured(sample, lambda: _opened(verb, adapter, weights, opening, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    prices = Prices(machine_price, storage_price, transfer_price)
    found = estimated(sample, speed, prices, processes, days, hours)
    if as_json:
        say(json_text.write({**asdict(found), "sample": asdict(speed), "device": opening["device"]}))
        return
    tried = f"{speed.audio_seconds:.0f} s of {len(sample.jobs)} rows, {speed.failed} failed"
    say(f"measured:  {tried}: {speed.rtfx:.2f}x real time on {opening['device']}, one process")
    say(f"opening:   {speed.opening_seconds:.1f} s for each process")
    say(f"audio:     {found.audio_hours:,.1f} hours, about {sample.rows:,} rows in what was named")
    say(f"work:      {found.machine_hours:,.1f} machine hours of {processes} processes")
    say(f"machines:  {found.machines:,} to be done in {days:g} days")
    say(f"bytes:     {found.gigabytes_in:,.2f} GB read, {found.gigabytes_out:,.4f} GB written")
    if found.money:
        say(f"money:     {found.money:,.2f}; {found.money_per_thousand_hours:,.2f} for a thousand hours")


def _opened(verb: str, adapter: str | None, weights: str | None, opening: dict[str, Any], folder: Any) -> Any:
    if verb == "restore":
        from ..restore.restorer import Restorer

        restorer = Restorer(adapter or "", weights, **opening)
        return restorer, lambda jobs: restorer.work(jobs, folder)
    if verb == "classify":
        from ..classify.classifier import Classifier

        classifier = Classifier([adapter or ""], weights, **opening)
        return classifier, lambda jobs: classifier.work(jobs, ("csv",))
    from ..transcribe.transcriber import Transcriber

    transcriber = Transcriber(weights, adapter, **opening)
    return transcriber, lambda jobs: transcriber.work(jobs, ("txt",))


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 wrong usage or nothing that can be measured."""
    return run(app, argv, "estimate")


if __name__ == "__main__":
    raise SystemExit(main())
