"""speech-peft shards status|verify|merge OUT: what was made in shards, while it is made and afterwards."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..terminal.door import printable, say
from ..terminal.program import new_app, run

app = new_app("What was made in shards: how far it is, whether it is whole, all of it in one file.")
Out = Annotated[str, typer.Argument(metavar="OUT", help="The folder or address given as --out.")]


@app.command()
def status(
    out: Out, as_json: Annotated[bool, typer.Option("--json", help="As one object, for programs.")] = False
) -> None:
    """How many shards and rows are done, failed and under way."""
    from ..files import json_text
    from ..folders.progress import clock
    from . import look

    found = look.status(out)
    if as_json:
        say(json_text.write(asdict(found)))
        return
    say(f"{found.command}: {found.done} of {found.shards} shards done, {found.under_way} under way")
    rows = f"{found.rows} rows: {found.ok} done"
    rows += f", {found.truncated} of them truncated" if found.truncated else ""
    rows += f", {found.failed} failed" if found.failed else ""
    say(rows + (f", {found.quarantined} of those in quarantine" if found.quarantined else ""))
    say(f"{clock(found.audio_seconds)} of audio, {found.bytes / 1e6:.1f} MB of {found.format}")
    if found.retries:
        say(f"{found.retries} requests to the store were made again")


@app.command()
def verify(out: Out) -> None:
    """Read every shard: nothing missing, changed or torn, and no row twice; else exit code 1."""
    from . import look

    count = 0
    for problem in look.problems(out):
        count += 1
        say(printable(problem))
    if count:
        raise typer.Exit(1)
    found = look.status(out)
    say(f"{found.shards} shards, {found.ok} rows: whole")


@app.command()
def merge(
    out: Out,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The file: .jsonl, or the .tar or .parquet that the shards are."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="What is done so far.")] = False,
) -> None:
    """All shards in one file, in the order of the rows; JSON lines hold no sound."""
    from . import look

    if to is None:
        raise ConfigError("--to: give the file to write, such as all.jsonl")
    say(f"{look.merge(out, to, partial)} rows in {to}")


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 something is wrong with the shards, 2 wrong usage."""
    return run(app, argv, "shards")


if __name__ == "__main__":
    raise SystemExit(main())
