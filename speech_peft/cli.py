"""The `speech-peft` command: one word per job, and nothing is imported before it is known which."""

import errno
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from . import __version__
from .errors import ConfigError, OtherWeights, SpeechPeftError, did_you_mean
from .interrupts import sigterm_as_ctrl_c
from .terminal import complain, enduring, say, silence

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
        say(usage())
        return 0
    if word == "--version":
        say(f"speech_peft {__version__}")
        return 0
    if word not in COMMANDS:
        complain(f"speech-peft: no command {word!r}. {did_you_mean(word, COMMANDS)}")
        return 2
    command: Callable[[list[str] | None], int] = import_module(f".{COMMANDS[word][0]}", __package__).main
    sys.argv[0] = f"speech-peft {word}"  # what a command calls itself in its own help
    return guarded(command, rest)


def guarded(command: Callable[[list[str] | None], int], argv: list[str] | None) -> int:
    """The exit code of a command or a typer app; an error written for the user is one line, no traceback.

    SIGTERM is what Ctrl-C is from the first moment, before a command knows how to end in order. Standard
    error that is closed or full ends nothing.
    """
    with enduring(), sigterm_as_ctrl_c(), warnings.catch_warnings():
        warnings.showwarning = _shown(warnings.showwarning)
        return _exit_code(command, argv)


def _shown(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Prints warnings that are written for the user as notes, without a line of our source."""

    def show(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        if issubclass(category, OtherWeights):
            complain(f"warning: {message}")
        else:
            otherwise(message, category, *place, **more)

    return show


def _exit_code(command: Callable[[list[str] | None], int], argv: list[str] | None) -> int:
    try:
        return command(argv)
    except SystemExit as done:
        if type(done.__context__).__name__ == "Abort":  # what the parser makes of Ctrl-C
            return 130
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except SpeechPeftError as error:
        complain(f"error: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        _unwritable(error)
        return 1
    except Exception as error:
        if type(error).__name__ == "Abort":
            complain("interrupted")
            return 130
        show: Any = getattr(error, "show", None)  # an argument error of the parser
        if show is None:
            raise
        show()
        return getattr(error, "exit_code", 2)


# What no correction of ours could mend: a full or read-only disk, rights, a pipe that nobody reads.
_OF_THE_MACHINE = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EPIPE),
        *(errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    }
)


def _unwritable(error: OSError) -> None:
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        silence(sys.stdout)
    if error.errno != errno.EPIPE:  # `| head` has read what it wanted
        complain(f"error: {error.filename or 'output'}: {error.strerror}")


def run() -> None:
    """The entry point of the installed command."""
    raise SystemExit(main())


if __name__ == "__main__":
    run()
