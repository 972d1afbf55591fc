"""How commands end: one table of exit codes, and errors for the user in one line."""

import errno
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, OtherWeights, SpeechPeftError
from .door import complain, enduring, silence
from .interrupts import sigterm_as_ctrl_c


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
        if type(error).__name__ == "NoArgsIsHelpError":
            show()
        else:
            complain(f"error: {_of_the_parser(error)}")
        return getattr(error, "exit_code", 2)


def _of_the_parser(error: Any) -> str:
    """What a parser says of a wrong argument, in one line, with the words there are and where to look."""
    said = " ".join(error.format_message().split()).replace(": Value error, ", ": ")
    context = getattr(error, "ctx", None)
    if context is None:
        return said
    if said.startswith("No such command"):
        said = f"{said.rstrip('.')}; there are {', '.join(context.command.list_commands(context))}"
    if said.endswith("?"):
        return said
    return f"{said.rstrip('.')}; see {context.command_path} --help"


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
