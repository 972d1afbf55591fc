"""What this package raises, so that a command can tell a user's mistake from a bug of ours."""

from collections.abc import Iterable
from difflib import get_close_matches


class SpeechPeftError(Exception):
    """The base of every error whose message is written for the user."""


class ConfigError(SpeechPeftError, ValueError):
    """A recipe, an option or an argument is wrong; commands exit with 2."""


class AudioError(SpeechPeftError):
    """One recording cannot be used; a batch lists the reason and goes on."""

    def __init__(self, path: object, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


class NoSuchAudio(AudioError, FileNotFoundError):
    """A recording that was named in Python is not there; commands list it as a row instead."""


class OtherWeights(UserWarning):
    """An adapter is used on weights of the same shape that are not those it was trained on."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM at a moment when everything is saved; commands exit with 130."""


def nearest(name: str, options: Iterable[str], n: int = 3) -> list[str]:
    """The options a user most likely meant, best first; empty when nothing is close."""
    options = list(options)
    close = get_close_matches(name, options, n=n, cutoff=0.5)
    return close or [option for option in options if name and option.startswith(name)][:n]  # r for rank


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A sentence for the end of an error: the nearest names, or all there are when none is near."""
    options = sorted(options)
    close = nearest(name, options)
    if close:
        return f"Did you mean {' or '.join(repr(option) for option in close)}?"
    return f"There are: {', '.join(options) or 'none'}."
