"""The methods there are: `speech-peft methods list | show NAME`, from the files that define them."""

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal.door import line, say
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from ..core.method import Method

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")

app = new_app("List the methods of adaptation, and show what one of them is.")
Name = Annotated[str, typer.Argument(help="As `list` prints it: lora.")]


@app.command("list")
def list_all() -> None:
    """Every method, with what it is and the paper it is from."""
    from ..registry import METHODS

    for name, method in METHODS.items():
        named = ", ".join(f"arXiv:{paper}" for paper in papers(about(method)))
        line(f"{name:<14} {first(method.__doc__)}{f' ({named})' if named else ''}")


@app.command()
def show(name: Name) -> None:
    """What a method is: equation, paper, where it sits, settings with their defaults, cost."""
    from ..recipe import fields
    from ..registry import METHODS

    method = METHODS[name]
    say(about(method))
    line("")
    kinds = ", ".join(sorted(method.kinds))
    line(f"Sits at: {kinds or 'what its host sits at'}")
    line(f"Cost: {_cost(name)}")
    line("")
    line("Settings:")
    meanings = fields.documented(method)
    for field, info in method.model_fields.items():
        line(f"  {field}: {fields.spelled(info.annotation)}, {_default(fields.default(info))}")
        if meaning := meanings.get(field):
            line(f"      {meaning}")


def about(method: "type[Method]") -> str:
    """The opening of a method's file: paper and equation."""
    return (sys.modules[method.__module__].__doc__ or "").strip()


def first(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().partition("\n")[0]


def equation(text: str) -> str:
    """What the first formula says y' or W' is, or else its first line; without the words beside it."""
    formula = next((block for block in text.split("\n\n") if re.match(r"(    |y' =)", block)), "")
    lines = [re.sub(r"^[^=]*\s{3,}", "", line.strip()) for line in formula.splitlines() if " = " in line]
    lines = [re.sub(r"\s+=\s+", " = ", line) for line in lines]
    line = next((line for line in lines if line.startswith(("y' =", "W' ="))), lines[0] if lines else "")
    return re.split(r"[,;]?\s{2,}", line)[0]


def papers(text: str) -> list[str]:
    """The numbers of the papers that a text names, at arXiv."""
    return list(dict.fromkeys(_ARXIV.findall(text)))


def _default(said: str) -> str:
    return "required" if said == "required" else f"default {said.strip('`')}"


def _cost(name: str) -> str:
    """Numbers that train in a small random Whisper, by the defaults or by the method's first example."""
    from ..backbones.families import tiny
    from ..core.describe import count
    from ..core.model import AdaptedModel
    from ..errors import ConfigError
    from ..registry import METHODS

    method = METHODS[name]
    if not method.examples():
        return "it sits nowhere"
    try:
        chosen = method()
    except ConfigError:
        chosen = method.examples()[0]
    for family in ("whisper", "ast", "usm"):
        backbone = tiny(family)
        base = count(backbone.module.parameters())
        try:
            model = AdaptedModel(backbone.module, backbone.sites(), {**chosen.company(), "a": chosen})
        except ConfigError:
            continue
        trained = count(model.parameters_of("a"))
        return f"{trained:,} numbers train, {base:,} stay frozen, in a {family} of 2 blocks, 32 wide"
    return "not known: no small model has sites for it"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "methods")


if __name__ == "__main__":
    raise SystemExit(main())
