"""Weights that were too large for one package: folders of several, their files put together once."""

import hashlib
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import ConfigError
from ...files.cache import made_once

_PART = re.compile(r"(?P<name>.+)\.part[-_]?(?P<number>\d+)")


def join(folders: Sequence[Path], cache: Path, address: str) -> Path:
    """One folder with the files of all; `model.bin.part1` and `model.bin.part2` become `model.bin`.

    It is found again in `cache` by the names, sizes and times of the files. Raises ConfigError where a part
    is missing, or where two folders have a file of one name.
    """
    whole: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in (file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()):
        found = _PART.fullmatch(file.name)
        name, number = (found["name"], int(found["number"])) if found else (file.name, 0)
        if file.suffix in (".py", ".pyc"):
            continue
        if number in whole[name]:
            raise ConfigError(f"weights: {address}: both {whole[name][number]} and {file} are {file.name}")
        whole[name][number] = file
    for name, parts in whole.items():
        numbers = sorted(parts)
        if numbers != [0] and numbers not in (list(range(len(numbers))), list(range(1, len(numbers) + 1))):
            raise ConfigError(
                f"weights: {address}: {name} is here in parts {numbers}; name the packages of all parts, "
                "joined by +"
            )
    key = hashlib.sha256()
    for name in sorted(whole):
        for number in sorted(whole[name]):
            stat = whole[name][number].stat()
            key.update(f"{name}|{number}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    final = cache / key.hexdigest()[:32]
    if final.is_dir() and not _whole(final, whole):
        shutil.rmtree(final)  # damaged since: put together again
    return made_once(final, lambda new: _put_together(whole, new))


def _put_together(files: Mapping[str, Mapping[int, Path]], folder: Path) -> None:
    for name, parts in files.items():
        with open(folder / name, "wb") as target:
            for number in sorted(parts):
                with open(parts[number], "rb") as source:
                    shutil.copyfileobj(source, target)


def _whole(folder: Path, files: Mapping[str, Mapping[int, Path]]) -> bool:
    """Whether each file is as long as its parts together."""
    return all(
        (folder / name).is_file()
        and (folder / name).stat().st_size == sum(part.stat().st_size for part in parts.values())
        for name, parts in files.items()
    )
