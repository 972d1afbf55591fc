"""Folders of adapters by language: `speech-peft packs list | make`."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..terminal.door import line
from ..terminal.program import new_app, run

app = new_app("Folders of adapters by language; `transcribe --packs` takes the right one for each recording.")
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of packs.")]


@app.command("list")
def listed(
    folder: Folder,
    language: Annotated[
        str | None, typer.Option(metavar="TAG", help="Say only which pack a language gets.")
    ] = None,
) -> None:
    """Print the packs of a folder: their languages, methods and base."""
    from ..compose.packs import Packs

    packs = Packs.read(folder)
    if language is not None:
        line(packs.pack_of(language) or "none: the base hears alone")
        return
    for name, saved in packs.opened().items():
        size = (saved.folder / "adapter.safetensors").stat().st_size / 1e6
        line(f"{name:12} {saved.method.name:12} {size:6.2f} MB  for {', '.join(packs.languages_of(name))}")
    line(f"of {saved.backbone}; below a confidence of {packs.least:g} the base hears alone")


@app.command()
def make(
    folder: Folder,
    adapters: Annotated[
        list[str], typer.Argument(metavar="NAME=ADAPTER...", help="cs=runs/cs/language, slavic=runs/slavic/x")
    ],
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TAG,TAG", help="Languages of a group; repeat.")
    ] = None,
    least: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="How sure a language has to be; 0.5 if not given.")
    ] = None,
    closed: Annotated[
        bool | None,
        typer.Option("--closed/--open", help="Recordings are in no other languages than those of the packs."),
    ] = None,
) -> None:
    """Copy adapters into a folder of packs, beside those that are there."""
    given = {name: Path(path) for name, path in map(_named, adapters)}
    groups = {name: tuple(tags.split(",")) for name, tags in map(_named, group or [])}
    from ..compose import packs

    made = packs.make(folder, given, groups, least, closed)
    line(f"{folder}: {', '.join(made.folders)}")


def _named(text: str) -> tuple[str, str]:
    name, sign, rest = text.partition("=")
    if not (name and sign and rest) or "/" in name or "\\" in name or name.startswith("."):
        raise ConfigError(f"{text!r} has no name; expected such as cs=runs/cs/language")
    return name, rest


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "packs")


if __name__ == "__main__":
    raise SystemExit(main())
