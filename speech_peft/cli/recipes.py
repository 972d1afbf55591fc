"""The recipes that come with the package: `speech-peft recipes list | show NAME | copy NAME FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..recipe.config import bundled, find
from ..terminal.door import line, say
from ..terminal.program import new_app, run

app = new_app("List, show and copy the bundled recipes.")
Name = Annotated[str, typer.Argument(help="As `list` prints it: asr/whisper_parallel.")]


@app.command("list")
def show_all() -> None:
    """Every bundled recipe, with its first line of explanation."""
    for name, path in bundled().items():
        comments = [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")]
        # The first comment line is the command; the second says what the recipe is.
        line(f"{name:<28} {comments[1] if len(comments) > 1 else ''}")


@app.command()
def show(name: Name) -> None:
    """Print a recipe."""
    say(find(name).read_text(), end="")


@app.command()
def copy(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(help="Where to; must not exist. By default its own name, here.")
    ] = None,
) -> None:
    """Copy a recipe, to make it yours."""
    file = file or Path(find(name).name)
    if file.exists():
        raise ConfigError(f"{file} exists already; give a new name")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(find(name).read_text())
    line(f"{file}: edit it, then run speech-peft train {file}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "recipes")


if __name__ == "__main__":
    raise SystemExit(main())
