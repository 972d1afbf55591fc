"""Players side by side: versions of one recording, equally loud and with spectrograms of one scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import SpeechPeftError
from ...metrics.loudness import common, matched
from ...metrics.metric import Sound
from .page import Media, relative_link
from .players import player, spectrogram

_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # of MP3


def side_by_side(versions: Mapping[str, Sound]) -> dict[str, Media]:
    """A player and a picture of each version, at the highest rate among them, all at one loudness."""
    wanted = max((sound.sample_rate for sound in versions.values()), default=_RATES[0])
    rate = next((known for known in _RATES if known >= wanted), _RATES[-1])
    samples = {name: sound.at(rate) for name, sound in versions.items()}
    level = common([(one, rate) for one in samples.values()])
    shown = {}
    for name, one in samples.items():
        try:
            shown[name] = Media(player(matched(one, rate, level), rate), spectrogram(one))
        except (SpeechPeftError, OSError, RuntimeError, ValueError) as error:
            shown[name] = Media(note=f"no player: {error}")
    return shown


def size(media: Mapping[str, Media]) -> int:
    """Bytes that they take in the page."""
    return sum(one.size for one in media.values())


def links(files: Mapping[str, str], folder: Path, note: str = "") -> dict[str, Media]:
    """The same without sound inside: links to files."""
    return {name: Media(link=relative_link(file, folder), note=note) for name, file in files.items()}


def names(rows: Sequence[Mapping[str, Media]]) -> list[str]:
    """Versions in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row))
