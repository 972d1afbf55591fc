"""Completion in the shell: `speech-peft --show-completion bash` prints what a shell reads at its start.

The script is typer's own. It asks this program with an environment variable, and only then are the parsers of
all commands put together, each when its word is there.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..errors import ConfigError
from ..terminal.door import say
from ..terminal.program import PROGRAM, command_of

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def show(shell: str, variable: str) -> int:
    """Print the script by which a shell asks with `variable` set; ConfigError for one unknown to typer."""
    if shell not in SHELLS:
        raise ConfigError(
            f"--show-completion: {shell!r} is no shell it knows; give one of {', '.join(SHELLS)}"
        )
    typers: Any = import_module("typer.completion")
    say(typers.get_completion_script(prog_name=PROGRAM, complete_var=variable, shell=shell))
    return 0


def answer(commands: Mapping[str, tuple[str, str]], variable: str) -> int:
    """Say what may come next, as the shell's script asks."""
    from typer.core import TyperCommand, TyperGroup

    class Words(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return None
            module, help = commands[cmd_name]
            if (
                cmd_name
                not in os.environ.get("COMP_WORDS", os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()
            ):
                return TyperCommand(name=cmd_name, help=help)
            return command_of(import_module(f"speech_peft.{module}").app)

    typers: Any = import_module("typer.completion")
    typers.completion_init()
    Words(name=PROGRAM).main(args=[], prog_name=PROGRAM, complete_var=variable)
    return 0
