"""What every command looks like: one program name, one style of help, one line for a wrong use."""

import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import typer

from .exits import guarded

PROGRAM = "speech-peft"
# `-h` beside `--help`, and no line longer than people read; a narrower terminal is respected.
_STYLE = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


def new_app(help: str | None = None) -> typer.Typer:
    """An app of one command, or, with `help`, of several; without arguments those explain themselves."""
    return typer.Typer(
        help=help,
        no_args_is_help=help is not None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def run(app: typer.Typer, argv: list[str] | None, word: str) -> int:
    """The exit code of `speech-peft WORD`, by whatever name it was called: 0 done, 1 nothing worked,
    2 wrong usage, 3 partly done, 130 interrupted."""
    arguments = [_dashed(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    given: dict[str, Any] = {"prog_name": f"{PROGRAM} {word}", "standalone_mode": False, **_STYLE}
    return guarded(lambda words: command_of(app).main(words, **given) or 0, arguments)


def command_of(app: typer.Typer) -> Any:
    """The parser of an app; in its help `[a|b]` are all values that an option may have, `<int>` is a type."""
    command = typer.main.get_command(app)
    _plainly(command)
    return command


def _plainly(command: Any) -> None:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.metavar = parameter.metavar or parameter.name.upper()
        parameter.get_help_record = partial(_record, parameter, parameter.get_help_record)
    for part in getattr(command, "commands", {}).values():
        _plainly(part)


def _record(parameter: Any, record: Callable[[Any], tuple[str, str] | None], ctx: Any) -> Any:
    """A line of the help, with the kind of value as a user knows it."""
    if (known := record(ctx)) is None:
        return None
    names, bracket, kind = known[0].partition(" <")
    if not bracket:
        return known
    if parameter.param_type_name == "argument":
        return names, known[1]
    kind = kind.removesuffix(">").removesuffix(" range").lower()
    kind = re.sub(r"^list\[(.+)\]$", r"\1", kind)
    return f"{names} [{kind}]" if "|" in kind else f"{names} <{kind}>", known[1]


def _dashed(argument: str) -> str:
    """--beam_size is --beam-size: both spellings are in people's fingers."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value
