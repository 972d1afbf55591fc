"""Any folder of class folders, `CLASS/CLIP.wav`, as a manifest; the file names may tell more.

A regular expression reads them: its named groups become columns of the whole name without its suffix.

    (?P<fold>\\d)-.*                               1-100032-A.ogg     -> fold 1
    (?P<label>\\d)_(?P<speaker>[a-z]+)_\\d+         7_jackson_32.wav   -> label 7, speaker jackson
"""

import re
from pathlib import Path

from ...audio import manifest
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from .base import Prepared, Progress, measured, number, silent, write_parts

_TAKEN = ("id", "audio", "audio_filepath", "start", "offset", "duration", "target_audio")


@CORPORA.register("class-folder")
def prepare(
    root: str | Path,
    out: str | Path | None = None,
    *,
    pattern: str | None = None,
    progress: Progress = silent,
) -> Prepared:
    """`OUT/all.jsonl`; the folder is the label unless the pattern has a group `label`.

    Groups `label`, `speaker`, `lang` and `text` fill these fields, any other a column of its own name.
    """
    root = Path(root)
    names = _compiled(pattern or ".*")
    files = manifest.recordings(root)
    if not files:
        raise ConfigError(f"{root}: no recording below it; expected CLASS/CLIP.wav")
    rows = manifest.labelled([_row(root, file, names) for file in files], root)
    stamp = {"corpus": "class-folder", "pattern": pattern}
    return write_parts(Path(out) if out else root, {"all": measured(rows, len(rows), progress)}, stamp)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        names = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--pattern '{pattern}': not a regular expression ({error})") from error
    if taken := [name for name in names.groupindex if name in _TAKEN]:
        raise ConfigError(
            f"--pattern '{pattern}': {', '.join(taken)} is the recording's own; rename the group"
        )
    return names


def _row(root: Path, file: Path, names: re.Pattern[str]) -> Row:
    match = names.fullmatch(file.stem)
    if match is None:
        raise ConfigError(
            f"{file}: its name without the suffix, {file.stem!r}, does not match '{names.pattern}'"
        )
    told = {name: cell for name, cell in match.groupdict().items() if cell is not None}
    below = file.relative_to(root)
    label = told.pop("label", below.parts[0] if len(below.parts) == 2 else None)
    if not label:
        raise ConfigError(
            f"{file}: not in a class folder of {root}, and '{names.pattern}' names no label: "
            "expected CLASS/CLIP.wav, or a --pattern with the group (?P<label>...)"
        )
    return Row(
        below.with_suffix("").as_posix(),
        file,
        text=told.pop("text", None),
        label=label,
        speaker=told.pop("speaker", None),
        lang=told.pop("lang", None),
        extra={name: number(cell) for name, cell in told.items()},
    )
