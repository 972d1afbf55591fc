"""What the user named on the command line, as a list of jobs that each have a name of their own."""

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..audio.files import problem_of
from ..audio.records import suffix_of
from ..errors import ConfigError

MANIFESTS = frozenset({".jsonl", ".ndjson", ".csv", ".tsv"})


@dataclass(frozen=True)
class Job:
    """One recording to work on."""

    audio: Path
    relpath: str
    """Where its outputs go, below the output folder and without a suffix; unique in a run."""
    start: float = 0.0
    duration: float | None = None
    problem: str | None = None
    """Why it cannot even be tried."""

    @property
    def id(self) -> str:
        return self.relpath + self.audio.suffix


def gather(inputs: Sequence[str | Path], suffixes: frozenset[str]) -> list[Job]:
    """Files, folders (searched through, links followed once), globs and manifests.

    What cannot be read becomes a job with a problem, so that it is reported beside the others. Raises
    ConfigError for an input that is not there at all.
    """
    jobs = [job for given in inputs for job in _of(str(given), suffixes)]
    if not jobs:
        raise ConfigError(
            f"no recording in {', '.join(map(str, inputs))}: looked for {' '.join(sorted(suffixes))}"
        )
    return refuse_collisions(jobs)


def refuse_collisions(jobs: Iterable[Job]) -> list[Job]:
    """Jobs whose outputs would share a name are refused, each naming the other; a file given twice is one."""
    jobs = list(dict.fromkeys(jobs))
    by_name: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_name[job.relpath].append(job)
    return [_refused(job, by_name[job.relpath]) for job in jobs]


def _refused(job: Job, namesakes: list[Job]) -> Job:
    others = [str(other.audio) for other in namesakes if other is not job]
    if not others or job.problem:
        return job
    return replace(
        job,
        relpath=job.relpath + job.audio.suffix,  # a name for its row
        problem=f"its output would have the same name as that of {', '.join(others)}; rename one, run them "
        "into different folders, or keep suffixes with --name-template '{relpath}{suffix}.{ext}'",
    )


def _of(given: str, suffixes: frozenset[str]) -> Iterator[Job]:
    path = Path(given)
    if os.path.isdir(path):
        yield from _folder(path, suffixes)
    elif not os.path.lexists(path):
        found = sorted(glob.glob(given, recursive=True))
        if not found:
            raise ConfigError(f"{given}: there is no such file, folder or pattern")
        for name in found:
            yield from _of(glob.escape(name) if name != given else name, suffixes)
    elif suffix_of(path) in MANIFESTS:
        yield from _manifest(path)
    else:
        yield _file(path, path.stem)


def _manifest(path: Path) -> Iterator[Job]:
    from ..audio import manifest

    listed = manifest.listed(path, broken="kept")
    for place, row in enumerate(listed.each() if isinstance(listed, manifest.Listing) else listed):
        if isinstance(row, str):  # one bad row is reported beside the others
            yield Job(path, f"{path.name}@{place + 1}", problem=row.removeprefix(f"{path}:"))
            continue
        name = PurePosixPath(row.id)
        parts = [part for part in name.parts if part not in ("/", "..", ".")]  # an id never leaves the folder
        relpath = "/".join(parts) or "row"
        yield replace(_file(row.audio, relpath), start=row.start, duration=row.duration)


def _folder(top: Path, suffixes: frozenset[str]) -> Iterator[Job]:
    seen: set[tuple[int, int]] = set()

    def walk(folder: Path) -> Iterator[Job]:
        relative = folder.relative_to(top)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                return  # a link back to where we have been
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Job(folder, relative.as_posix(), problem=_reason(error))
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(path):
                yield from walk(path)
            elif path.suffix.lower() in suffixes:
                yield _file(path, (relative / path.stem).as_posix())

    yield from walk(top)


def _file(path: Path, relpath: str) -> Job:
    return Job(path, relpath, problem=problem_of(path))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
