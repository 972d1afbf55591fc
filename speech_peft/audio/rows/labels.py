"""Rows to learn classes from: each with a label, each class with something to hear.

Several labels of one clip stand in one string, `dog;wind`; a clip of none of the classes has the label "".
"""

from collections.abc import Sequence
from pathlib import Path

from ...errors import AudioError, ConfigError
from .. import io
from .row import Row

_HOW = "Give a manifest with a column `label`, or a folder of class folders with the recordings right inside"


def labelled(rows: Sequence[Row], path: io.PathLike, *, multi_label: bool = False) -> Sequence[Row]:
    """The rows, once nothing is wrong with their labels; `path` is where they were read from.

    Refused, naming the row: one without a label (an empty one is a label if `multi_label`), and labels that
    differ only by case (some file systems make one folder of them). Where `path` is a folder of classes, also
    a class folder with no readable clip.
    """
    first: dict[str, Row] = {}  # of each label
    for row in rows:
        if row.label is None or not (row.label or multi_label):
            raise ConfigError(f"{path}: row {row.id!r} ({row.audio}) has no label. {_HOW}")
        for label in row.label.split(";"):
            first.setdefault(label.strip(), row)
    spelt: dict[str, str] = {}
    for label, row in first.items():
        other = spelt.setdefault(label.casefold(), label)
        if other != label:
            raise ConfigError(
                f"{path}: labels {other!r} (row {first[other].id!r}) and {label!r} (row {row.id!r}) "
                "differ only by case; rename one, or move its recordings to the other"
            )
    if Path(path).is_dir() and all(row.audio.parent == Path(path) / (row.label or "") for row in rows):
        _audible(rows, Path(path))
    return rows


def _audible(rows: Sequence[Row], top: Path) -> None:
    """Refuse a class folder of which no recording can be opened."""
    of_class: dict[str, list[Row]] = {
        child.name: [] for child in sorted(top.iterdir()) if child.is_dir() and not child.name.startswith(".")
    }
    for row in rows:
        of_class.setdefault(row.label or "", []).append(row)
    for label, members in of_class.items():
        if not members and _holds_recordings(top / label):
            continue  # all of them were left out by a limit or a choice of rows
        linked = (top / label).is_symlink()  # `recordings` passes them by: a link may lead in a circle
        reason = "it is a link, and links are not followed" if linked else "it holds no recording"
        for row in members:
            try:
                io.info(row.audio)
                break
            except AudioError as error:
                reason = f"none of its {len(members)} can be read; the last: row {row.id!r}: {error.reason}"
        else:
            raise ConfigError(
                f"{top / label}: class folder {label!r} has no readable recording ({reason}). "
                "Add one, or take the folder away"
            )


def _holds_recordings(folder: Path) -> bool:
    files = () if folder.is_symlink() else folder.iterdir()
    return any(file.suffix.lower() in io.AUDIO_SUFFIXES and not file.name.startswith(".") for file in files)
