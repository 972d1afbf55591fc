"""A folder of adapters as something to look things up in: each with its card, however deep it lies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...core.saved.save import BackboneCard, Saved, read
from ...errors import ConfigError
from .card import AdapterCard, read_card
from .likeness import Likeness

MOST = 10_000
"""Adapters in one folder."""


@dataclass(frozen=True)
class Entry:
    """One adapter of a catalogue."""

    name: str
    """Its folder, from that of the catalogue on."""
    saved: Saved
    card: AdapterCard


@dataclass(frozen=True)
class Catalogue:
    """The adapters of a folder."""

    folder: Path
    entries: Sequence[Entry]
    broken: Sequence[str] = ()
    """Why folders that hold an adapter.json could not be read."""

    @classmethod
    def read(cls, folder: str | Path) -> "Catalogue":
        """All adapters below a folder, and why others cannot be read; ConfigError where there is none."""
        folder, entries, broken = Path(folder), [], []
        for path in sorted(folder.rglob("adapter.json"))[:MOST]:
            try:
                saved = read(path.parent)
                name = path.parent.relative_to(folder).as_posix()
                entries.append(Entry(name, saved, read_card(saved)))
            except ConfigError as error:
                broken.append(str(error))
        if not entries:
            why = f": {broken[0]}" if broken else ""
            raise ConfigError(f"{folder} holds no adapter, in it or in folders inside it{why}")
        return cls(folder, entries, broken)

    def of_base(self, card: BackboneCard) -> "Catalogue":
        """Those that were trained on the very weights of `card`: others are never offered for it.

        What does not know the sha256 of its weights cannot say so, and is left out too.
        """
        fits = [
            entry
            for entry in self.entries
            if entry.saved.backbone.name == card.name
            and card.sha256 is not None
            and entry.saved.backbone.sha256 == card.sha256
        ]
        return replace(self, entries=fits)

    @cached_property
    def likeness(self) -> Likeness | None:
        """The measure of its sounds, those of the first one's width; None where no card has one."""
        sounds = [entry.card.sound for entry in self.entries if entry.card.sound is not None]
        alike = [sound for sound in sounds if len(sound.mean) == len(sounds[0].mean)]
        return Likeness(alike) if alike else None

    @property
    def bases(self) -> dict[str, BackboneCard]:
        """The frozen models that its adapters are for, by the sha256 of their weights or their address."""
        return {
            entry.saved.backbone.sha256 or entry.saved.backbone.id: entry.saved.backbone
            for entry in self.entries
        }
