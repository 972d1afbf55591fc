"""A file appears under its final name only when it is complete.

A run that is killed leaves at most a hidden `.NAME.speech_peft-MARK-RANDOM.tmp` beside it, which `sweep`
removes once the process of that mark is certainly gone (`owner.py`); what others made stays. The temporary
file lies in the final folder where it can: a rename is atomic on one file system only.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import owner

_OURS = re.compile(rf"\..*\.speech_peft-({owner.PATTERN})-[0-9a-f]{{16}}(\.dir)?\.tmp", re.DOTALL)


@contextmanager
def atomic_path(final: str | os.PathLike[str]) -> Iterator[Path]:
    """Write to the path this yields; it becomes `final` when the block ends well, and vanishes when not.

    >>> with atomic_path("out/scores.json") as path:      # doctest: +SKIP
    ...     path.write_text("{}")
    """
    temporary = temporary_beside(final)
    try:
        yield temporary
        finish(temporary, Path(final))
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(final: str | os.PathLike[str]) -> Path:
    """A new, empty, hidden file of this process in the folder of `final`, which `sweep` knows.

    Its name cannot be guessed, and nothing that is there already is opened, a link neither.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    path = final.with_name(_name(final.name))
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # less the umask
    return path


def temporary_folder_beside(final: str | os.PathLike[str]) -> Path:
    """The same for what is a folder; `sweep` removes it with all that is in it."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    path = final.with_name(_name(final.name, ".dir"))
    path.mkdir()
    return path


@contextmanager
def atomic_folder(final: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder to write into; it becomes `final` when the block ends well, and vanishes when not.

    Raises OSError where `final` is there by then and has something in it.
    """
    temporary = temporary_folder_beside(final)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _to_disk(file)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _name(name: str, kind: str = "") -> str:
    # Only the start of the name: a final name may already be as long as the file system allows. By bytes,
    # as the file system counts, but never through the middle of a character.
    start = os.fsencode(name)[:40].decode("utf-8", "ignore")
    return f".{start}.speech_peft-{owner.mark()}-{secrets.token_hex(8)}{kind}.tmp"


def finish(temporary: Path, final: Path) -> None:
    """Give what was written whole under a temporary name its own, in one step."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _to_disk(temporary)
    try:
        os.replace(temporary, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_path(final) as path:  # a folder of the output may be another file system
            shutil.copyfile(temporary, path)
        temporary.unlink()


def _to_disk(file: Path) -> None:
    with open(file, "rb") as written:
        os.fsync(written.fileno())  # else a power cut may leave the new name over empty blocks


def write_bytes(final: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file's content in one step."""
    with atomic_path(final) as path:
        path.write_bytes(content)


def write_text(final: str | os.PathLike[str], text: str) -> None:
    """Replace the file's content in one step, as UTF-8 with `\\n` line ends."""
    write_bytes(final, text.encode())


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed runs left in `folder` and below; links are not followed.

    What is not ours stays, and so does what belongs to a process that may live.
    """
    removed = []
    for top, folders, files in os.walk(folder):
        for name in [*files, *folders]:
            ours = _OURS.fullmatch(name)
            if ours is None or not owner.gone(ours[1]):
                continue
            path = Path(top, name)
            with suppress(OSError):  # gone meanwhile, or not ours to remove
                shutil.rmtree(path) if ours[2] and not path.is_symlink() else path.unlink()
                removed.append(path)
    return removed
