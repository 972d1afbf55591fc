"""What became of one recording, whoever worked on it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SpeechPeftError
from ..inputs import Job


@dataclass(frozen=True)
class Outcome:
    """What became of one job: the content of its files by extension, or an error.

    A file too large to hold is a Path, written whole under a temporary name on the file system of the output.
    """

    job: Job
    files: Mapping[str, str | bytes | Path] = field(default_factory=dict)
    audio_seconds: float = 0.0
    seconds: float = 0.0
    truncated: bool = False
    error: str | None = None
    stage: str = ""


Work = Callable[[Iterable[Job]], Iterator[Outcome]]
"""Takes jobs and yields the outcome of each when it has it, in any order; may look ahead to fill batches."""


def failed(job: Job, error: BaseException, stage: str) -> Outcome:
    """The outcome of a job that raised: our own messages as they are, a bug with its type."""
    text = str(error) if isinstance(error, SpeechPeftError) else f"{type(error).__name__}: {error}"
    return Outcome(job, error=text.removeprefix(f"{job.audio}: "), stage=stage)
