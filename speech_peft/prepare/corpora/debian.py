"""Debian packages as a source of recordings: fetched without installing anything, read in memory."""

import io as stdio
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ...errors import ConfigError

Wanted = Callable[[str], bool]  # of a member's path


def download(packages: Sequence[str], folder: Path, corpus: str, manual: str) -> list[Path]:
    """The packages' .deb files, fetched by apt; with package lists of our own when the machine has none.

    Raises ConfigError, which ends in `manual` (what to do by hand), where that does not work.
    """
    if shutil.which("apt-get") is None:
        raise ConfigError(f"{corpus}: not installed, and this machine has no apt-get; {manual}")
    (folder / "lists").mkdir()
    private = ["-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
    failure = ""
    for before, options in ((None, []), ("update", private)):
        base = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", *options]
        if before:
            subprocess.run([*base, before], capture_output=True, timeout=300, check=False)
        ran = subprocess.run(
            [*base, "download", *packages],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if len(found := sorted(folder.glob("*.deb"))) >= len(packages):
            return found
        failure = ran.stderr.strip()
    raise ConfigError(f"{corpus}: apt-get download failed ({failure[-300:]}); {manual}")


def contents(
    packages: Sequence[str],
    wanted: Wanted,
    *,
    sources: Sequence[Path],
    installed: Sequence[Path],
    corpus: str,
    manual: str,
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The wanted files of the sources that were given, else of what is installed, else of the packages.

    These are fetched into a temporary folder. Raises ConfigError as `download` and `members` do.
    """
    with tempfile.TemporaryDirectory() as folder:
        for source in sources or installed or download(packages, Path(folder), corpus, manual):
            yield from members(source, wanted)


def members(source: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The wanted files of a folder, a .deb, a tarball or a single file.

    Raises ConfigError where it does not exist or is damaged.
    """
    if not source.exists():
        raise ConfigError(f"{source}: no such file or folder")
    if source.is_dir():
        paths = (path for path in sorted(source.rglob("*")) if path.is_file())
        yield from ((PurePosixPath(p.as_posix()), p.read_bytes()) for p in paths if wanted(p.as_posix()))
    elif source.suffix == ".deb":
        yield from _tar(_data_archive(source), source, wanted)
    elif tarfile.is_tarfile(source):
        yield from _tar(source.read_bytes(), source, wanted)
    else:
        yield PurePosixPath(source.as_posix()), source.read_bytes()


def _tar(content: bytes, source: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        with tarfile.open(fileobj=stdio.BytesIO(content)) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() and wanted(member.name) else None
                if file is not None:
                    yield PurePosixPath(member.name), file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ConfigError(f"{source}: damaged archive ({error})") from error


def _data_archive(source: Path) -> bytes:
    """The data archive of a Debian package: an `ar` file of members with 60-byte headers."""
    content = source.read_bytes()
    if not content.startswith(b"!<arch>\n"):
        raise ConfigError(f"{source}: not a Debian package")
    at = 8
    while at + 60 <= len(content):
        name = content[at : at + 16].decode("ascii", "replace").strip(" /")
        digits = content[at + 48 : at + 58].strip()
        if not digits.isdigit():  # a negative size would send us back, for ever
            raise ConfigError(f"{source}: damaged archive (the size of its member {name!r} reads {digits!r})")
        size = int(digits)
        if name in ("data.tar", "data.tar.xz", "data.tar.gz", "data.tar.bz2"):
            return content[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    if shutil.which("dpkg-deb"):  # zstd, which Python's tarfile does not read
        ran = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(source)], capture_output=True, check=False)
        if ran.returncode:
            raise ConfigError(
                f"{source}: damaged archive ({ran.stderr.decode(errors='replace').strip()[-200:]})"
            )
        return ran.stdout
    raise ConfigError(f"{source}: its data is compressed in a way only dpkg-deb reads, and that is not here")
