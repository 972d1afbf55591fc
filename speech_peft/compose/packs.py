"""A folder of adapters by language, one of them for each recording (Bactrian-X, Li et al. 2023,
arXiv:2305.15011).

    packs/cs/adapter.json …       named by a BCP-47 tag
    packs/slavic/adapter.json …   or by a group of languages
    packs/packs.json              optional: {"groups": {"slavic": ["cs", "pl"]}, "least": 0.5}

A language gets its own pack, else that of the smallest group it is in, else none.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.saved.save import Saved, read
from ..core.saved.swap import WRITTEN
from ..errors import ConfigError
from ..files import json_text

FILE = "packs.json"
_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
Tags = Annotated[tuple[str, ...], Field(min_length=1, max_length=200)]


class Settings(BaseModel):
    """packs.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    groups: Annotated[dict[str, Tags], Field(max_length=200)] = {}
    """What is no language, and which languages it is for."""
    least: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How sure the language has to be; below, the frozen model hears alone."""
    closed: bool = False
    """Whether recordings are in no other languages than those of the packs: one of these is then heard."""


@dataclass(frozen=True)
class Packs:
    """The packs of a folder."""

    folder: Path
    folders: Mapping[str, Path]
    """By name."""
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def read(cls, folder: str | Path) -> "Packs":
        """The packs in a folder; raises ConfigError where there are none, or a name says no language."""
        folder = Path(folder)
        found = {path.parent.name: path.parent for path in sorted(folder.glob("*/adapter.json"))}
        if not found:
            raise ConfigError(
                f"packs: {folder} holds no adapters in folders named by languages, such as {folder / 'cs'}. "
                "`speech-peft packs make` puts some there"
            )
        packs = cls(folder, found, _settings(folder / FILE))
        for name in found:
            if name not in packs.settings.groups and not _TAG.fullmatch(name):
                raise ConfigError(
                    f"packs: {folder / name}: {name!r} is no BCP-47 tag such as cs or pt-BR, and no group of "
                    f"{folder / FILE}"
                )
        return packs

    @property
    def least(self) -> float:
        return self.settings.least

    def languages_of(self, name: str) -> tuple[str, ...]:
        """What a pack is for."""
        return self.settings.groups.get(name, (name,))

    def pack_of(self, language: str) -> str | None:
        """The pack of a language: its own, that of the language without region, that of its smallest group,
        or that of its one region."""
        parts = language.split("-")
        for length in range(len(parts), 0, -1):
            tag = "-".join(parts[:length])
            if tag in self.folders:
                return tag
            groups = [g for g, tags in self.settings.groups.items() if tag in tags and g in self.folders]
            if groups:
                return min(groups, key=lambda group: len(self.settings.groups[group]))
        regions = [name for name in self.folders if name.startswith(f"{parts[0]}-")]
        return regions[0] if len(regions) == 1 else None

    def opened(self) -> dict[str, Saved]:
        """What was saved of each."""
        return {name: read(folder) for name, folder in self.folders.items()}


def make(
    folder: Path,
    adapters: Mapping[str, Path],
    groups: Mapping[str, Tags],
    least: float | None = None,
    closed: bool | None = None,
) -> Packs:
    """Copy adapters into a folder of packs under their names, beside those that are there.

    Raises ConfigError, and copies nothing, for a name that says no language and for adapters of two bases.
    """
    before = _settings(folder / FILE)
    settings = Settings(
        groups={**before.groups, **groups},
        least=before.least if least is None else least,
        closed=before.closed if closed is None else closed,
    )
    there = {path.parent.name: path.parent for path in sorted(folder.glob("*/adapter.json"))}
    every = {name: read(path) for name, path in {**there, **adapters}.items()}
    first = next(iter(every.values()))
    for name, saved in every.items():
        if name not in settings.groups and not _TAG.fullmatch(name):
            raise ConfigError(
                f"packs: {name!r} is no BCP-47 tag such as cs or pt-BR; of a group say --group {name}=cs,pl"
            )
        if saved.backbone != first.backbone:
            raise ConfigError(f"packs: {name} was trained on {saved.backbone}, others on {first.backbone}")
        if saved.manifest.together:
            raise ConfigError(f"packs: {name} was trained together with others, and alone is not what it was")
    for name, path in adapters.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in (*WRITTEN, "card.json"):
            if (path / file).is_file():
                shutil.copy2(path / file, folder / name / file)
    text = json_text.write(settings.model_dump(mode="json"), indent=2) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")
    return Packs.read(folder)


def _settings(path: Path) -> Settings:
    if not path.is_file():
        return Settings()
    try:
        return Settings.model_validate(json_text.read_object(path))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
