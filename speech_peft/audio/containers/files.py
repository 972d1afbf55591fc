"""Whether a path is worth opening: asked by every command before any decoder is."""

import os
import stat

from .held import is_held

PathLike = str | os.PathLike[str]


def problem_of(path: PathLike) -> str | None:
    """Why it cannot be a recording, or None. It is not opened for that: a pipe would wait for ever.

    What lies in a store or in a file with others is not asked for; reading it says what is wrong.
    """
    if is_held(path):
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except ValueError as error:  # a NUL, half a surrogate pair
        return f"is no name that a file can have ({error})"
    if stat.S_ISDIR(status.st_mode):
        return "is a directory"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return None
