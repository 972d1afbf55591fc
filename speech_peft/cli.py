"""The `speech-peft` command: one word per job, and nothing is imported before it is known which."""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module

from . import __version__
from .errors import ConfigError, OtherWeights, SpeechPeftError, did_you_mean

# Word -> module with `main(argv) -> int`, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "train adapters from a recipe"),
    "transcribe": ("transcribe", "audio files and folders to text, subtitles or JSON"),
    "classify": ("classify", "audio files and folders to labels, with times in long recordings"),
    "restore": ("restore", "audio files and folders to audio without noise, gaps and echoes"),
    "prepare": ("prepare", "a corpus on disk to manifests"),
    "data": ("data_cli", "look at what a recipe trains on"),
    "sweep": ("sweep", "methods x seeds x folds of one recipe, in one table"),
    "bench": ("bench", "measure a system and write a report"),
    "adapter": ("adapters_cli", "show, compare, merge and convert adapter folders"),
    "recipes": ("recipes_cli", "list, show and copy the recipes that come with the package"),
    "doctor": ("doctor", "what works on this machine, and the fix for what does not"),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {word:<{width}}  {what}" for word, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: speech-peft COMMAND [ARGUMENTS]",
            "",
            "Adapts frozen speech encoders with small trained parts.",
            "",
            *lines,
            "",
            "speech-peft COMMAND --help explains a command; speech-peft --version prints the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 ok, 1 failed, 2 usage, 3 partly done, 130 interrupted."""
    word, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if word in ("-h", "--help"):
        print(usage())
        return 0
    if word == "--version":
        print(f"speech_peft {__version__}")
        return 0
    if word not in COMMANDS:
        print(f"speech-peft: no command {word!r}. {did_you_mean(word, COMMANDS)}", file=sys.stderr)
        return 2
    command: Callable[[list[str] | None], int] = import_module(f".{COMMANDS[word][0]}", __package__).main
    sys.argv[0] = f"speech-peft {word}"  # what a command calls itself in its own help
    return guarded(command, rest)


def guarded(command: Callable[[list[str] | None], int], argv: list[str] | None) -> int:
    """The exit code of a command or a typer app; an error written for the user is one line, no traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = _shown(warnings.showwarning)
        return _exit_code(command, argv)


def _shown(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Prints warnings that are written for the user as notes, without a line of our source."""

    def show(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        if issubclass(category, OtherWeights):
            print(f"warning: {message}", file=sys.stderr)
        else:
            otherwise(message, category, *place, **more)

    return show


def _exit_code(command: Callable[[list[str] | None], int], argv: list[str] | None) -> int:
    try:
        return command(argv)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except SpeechPeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def run() -> None:
    """The entry point of the installed command."""
    raise SystemExit(main())


if __name__ == "__main__":
    run()
