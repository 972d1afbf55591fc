"""What the user named on the command line, as a list of jobs that each have a name of their own."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..audio import store
from ..audio.containers.files import problem_of
from ..audio.rows import packed
from ..audio.rows.records import suffix_of
from ..audio.rows.row import Row
from ..errors import ConfigError
from .ledger import fingerprint

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
    task: str = ""
    """As a manifest's column `task` has it."""
    lang: str = ""
    """As its column `lang` has it."""
    others: tuple[Path, ...] = ()
    """The same, heard by other microphones that have files of their own."""

    @property
    def id(self) -> str:
        return self.relpath + self.audio.suffix

    def fingerprint(self) -> str:
        """Changes when one of its files does, or the slice that is used."""
        own = fingerprint(self.audio, self.start, self.duration)
        return "+".join([own, *map(fingerprint, self.others)])


class Gathered:
    """The jobs of what was named, each made when it is asked for; may be gone through more than once."""

    def __init__(self, parts: Sequence["Part"]):
        self.parts = parts

    def __iter__(self) -> Iterator[Job]:
        for part in self.parts:
            yield from part

    def count(self) -> int:
        """How many they are, rows counted twice that are given twice."""
        return sum(part.count() for part in self.parts)


def gather(inputs: Sequence[str | Path], suffixes: frozenset[str], at_once: bool = False) -> Gathered:
    """Files, folders (searched through, links followed once), globs and manifests.

    What cannot be read becomes a job with a problem, so that it is reported beside the others. Folders are
    listed while the jobs are asked for, or `at_once`: what is made meanwhile is then no input. Raises
    ConfigError for an input that is not there at all, and where there is none.
    """
    parts = [part for given in inputs for part in _parts(str(given), suffixes, at_once)]
    found = Gathered(parts)
    if next(iter(found), None) is None:
        raise ConfigError(
            f"no recording in {', '.join(map(str, inputs))}: looked for {' '.join(sorted(suffixes))}"
        )
    return found


@dataclass(frozen=True)
class Part:
    """The jobs of one input."""

    jobs: Callable[[], Iterator[Job]]
    count: Callable[[], int]

    def __iter__(self) -> Iterator[Job]:
        return self.jobs()


def _parts(given: str, suffixes: frozenset[str], at_once: bool) -> Iterator[Part]:
    path = Path(given)
    if packed.is_packed(given) and (store.is_remote(given) or path.is_file()):
        yield from _packed_parts(given)
    elif os.path.isdir(path):
        folder = Part(lambda: _folder(path, suffixes), lambda: sum(1 for _ in _names(path, suffixes)))
        yield _listed(folder) if at_once else folder
    elif not os.path.lexists(path):
        found = sorted(glob.glob(given, recursive=True))
        if not found:
            raise ConfigError(f"{given}: there is no such file, folder or pattern")
        for name in found:
            yield from _parts(glob.escape(name) if name != given else name, suffixes, at_once)
    elif suffix_of(path) in MANIFESTS:
        yield _manifest(path)
    else:
        yield Part(lambda: iter([_file(path, path.stem)]), lambda: 1)


def _packed_parts(given: str) -> Iterator[Part]:
    """Rows with the sound in one file, or in a store, where a pattern stands for several."""
    names = store.matching(given) if store.is_remote(given) and "*" in given else [given]
    for name in names:
        path = Path(name)

        def jobs(name: str = name, path: Path = path) -> Iterator[Job]:
            return (job_of(row, path, place) for place, row in enumerate(packed.rows(name), 1))

        yield Part(jobs, lambda jobs=jobs: sum(1 for _ in jobs()))


def _listed(part: Part) -> Part:
    jobs = list(part)
    return Part(lambda: iter(jobs), lambda: len(jobs))


def _manifest(path: Path) -> Part:
    from ..audio import manifest

    listed = manifest.listed(path, broken="kept")
    return Part(lambda: _rows(path, listed), lambda: len(listed))


def _rows(path: Path, listed: Sequence[Row]) -> Iterator[Job]:
    from ..audio import manifest

    for place, row in enumerate(listed.each() if isinstance(listed, manifest.Listing) else listed):
        yield job_of(row, path, place + 1)


def job_of(row: Row | str, path: Path, place: int) -> Job:
    """The job of a row of a manifest, or of what is wrong with it: one bad row is reported beside others."""
    if isinstance(row, str):
        return Job(path, f"{path.name}@{place}", problem=row.removeprefix(f"{path}:"))
    parts = [part for part in PurePosixPath(row.id).parts if part not in ("/", "..", ".")]
    relpath = "/".join(parts) or "row"  # an id never leaves the folder
    job = _file(row.audio, relpath)
    missing = next((f"{path}: {why}" for path in row.others if (why := problem_of(path))), None)
    return replace(
        job,
        problem=job.problem or missing,
        others=row.others,
        start=row.start,
        duration=row.duration,
        task=task_of(row),
        lang=row.lang or "",
    )


def task_of(row: Row) -> str:
    """What a row says in its column `task`; "" where it is silent."""
    return str(row.extra.get("task") or "")


def _folder(top: Path, suffixes: frozenset[str]) -> Iterator[Job]:
    for path, problem in _names(top, suffixes):
        relative = path.relative_to(top)
        if problem is not None:
            yield Job(path, relative.as_posix(), problem=problem)
        else:
            yield _file(path, relative.with_suffix("").as_posix())


def _names(top: Path, suffixes: frozenset[str]) -> Iterator[tuple[Path, str | None]]:
    """The recordings below a folder, sorted within each, and the folders that cannot be listed, with why."""
    seen: set[tuple[int, int]] = set()

    def walk(folder: Path) -> Iterator[tuple[Path, str | None]]:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                return  # a link back to where we have been
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(entry.name for entry in found)
        except OSError as error:
            yield folder, _reason(error)
            return
        for name in entries:
            path = folder / name
            if name.startswith("."):
                continue
            if os.path.isdir(path):
                yield from walk(path)
            elif path.suffix.lower() in suffixes:
                yield path, None

    yield from walk(top)


def _file(path: Path, relpath: str) -> Job:
    return Job(path, relpath, problem=problem_of(path))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
