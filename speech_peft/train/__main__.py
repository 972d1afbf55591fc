"""speech-peft train RECIPE [key=value ...]: adapters trained on a frozen backbone."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from ..errors import ConfigError, Interrupted
from ..recipe import config
from ..recipe.recipe import Recipe
from ..terminal.door import complain, line, say
from ..terminal.program import new_app, run
from .fit import check_parts
from .processes import is_first

app = new_app()


@app.command()
def command(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's file, or a bundled name such as asr/whisper_parallel.")
    ] = "",
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As in optim.lr=3e-4.")
    ] = None,
    resume: Annotated[
        Literal["auto", "never"], typer.Option(help="auto: go on from out/last.ckpt; never: start afresh.")
    ] = "auto",
    check: Annotated[
        bool, typer.Option("--check", help="Validate the recipe, print it in full and stop.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a recipe, for editors.")
    ] = False,
) -> None:
    """Train adapters on a frozen backbone, as a recipe says."""
    if schema:
        say(json.dumps(Recipe.model_json_schema(), indent=2))
        return
    if not recipe:
        raise ConfigError(f"give a recipe: a file, or one of {', '.join(config.bundled())}")
    stages = config.read_stages(recipe, overrides or ())
    if check:
        from .data import check as data_check

        for name, read in stages.items():
            check_parts(read)
            for note in data_check.check(read):
                complain(f"warning: {note}")
            say(f"# {name}\n" * bool(name) + config.dump(read), end="")
        return
    from . import stages as trainings

    trained = trainings.run(stages, resume=resume == "auto")
    if not is_first():
        return
    scores = f", {trained.scores.name} {trained.scores.value:.4f}" if trained.scores else ""
    line(f"{trained.steps} steps in {trained.seconds:.0f} s{scores}")
    base = "encoder fine-tuned, the rest unchanged" if trained.base_trained else "unchanged"
    line(f"base: {base}, sha256 {trained.base_sha256[:12]}")
    for folder in trained.folders:
        line(f"adapter: {folder}")


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        return run(app, argv, "train")
    except Interrupted:
        complain("interrupted: the state is saved, the same command goes on from there")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
