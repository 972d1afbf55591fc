"""Adapters in a folder, found by what they are for: `speech-peft adapter search | card`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..folders.options import ADDRESS
from ..terminal.door import line

if TYPE_CHECKING:
    from ..compose.cards.catalogue import Catalogue

Weights = Annotated[
    str | None,
    typer.Option("--weights", "--model", help=f"The frozen model: {ADDRESS}; the adapters' own."),
]
Several = Annotated[list[str] | None, typer.Option(help="Repeat for several.")]


def search(
    words: Annotated[str, typer.Argument(help="What is wanted, such as 'czech telephone'.")] = "",
    catalogue: Annotated[
        Path, typer.Option("-c", "--catalogue", help="The folder of adapters; by default here.")
    ] = Path("."),
    audio: Annotated[Path | None, typer.Option(help="A recording that it shall suit.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many, the best first.")] = 5,
    weights: Weights = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network.")] = False,
) -> None:
    """Find adapters in a folder by words, by a recording, or both; exit code 1 where nothing suits."""
    if not words and audio is None:
        raise ConfigError("search: give words, --audio, or both")
    if audio is not None and not audio.is_file():
        raise ConfigError(f"--audio: there is no {audio}")
    from dataclasses import replace

    from ..compose.cards.catalogue import Catalogue
    from ..compose.cards.select import Request, select
    from ..compose.cards.select import search as found_by
    from ..transcribe.catalogues import usable

    there = Catalogue.read(catalogue)
    for broken in there.broken:
        line(f"left out: {broken}")
    if audio is not None or weights is not None:
        there = replace(there, entries=usable(there, weights, offline))
    if not there.entries:
        raise ConfigError(f"{catalogue}: none of its adapters is for {weights}")
    sound = None if audio is None else _sound(there, audio, weights, offline)
    request = Request(words, sound)
    for one in found_by(there, request, k):
        mark = " " if one.suits else "-"
        line(f"{mark} {one.entry.name:32} {one.entry.saved.method.name:12} {one.why}")
    chosen = select(there, request)
    if not chosen.factors:
        line(chosen.why)
        raise typer.Exit(1)
    line("take " + " + ".join(f"{factor:g} x {name}" for name, factor in chosen.factors.items()))


def card(
    adapter: Annotated[Path, typer.Argument(help="An adapter folder.")],
    title: Annotated[str | None, typer.Option(help="In a few words.")] = None,
    description: Annotated[str | None, typer.Option(help="In a sentence.")] = None,
    language: Several = None,
    channel: Several = None,
    domain: Several = None,
    speaker: Several = None,
    tag: Several = None,
    weight: Annotated[
        float | None,
        typer.Option(help="What its change is multiplied by where it is chosen; 1 if not given."),
    ] = None,
    clips: Annotated[
        str | None, typer.Option(help="Recordings that it is for, by which it is found from audio alone.")
    ] = None,
    weights: Weights = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network.")] = False,
) -> None:
    """Write what an adapter is for into card.json beside it; what is not given stays. Prints the card."""
    from pydantic import ValidationError

    from ..compose.cards.card import AdapterCard, read_card, write_card
    from ..core.saved.save import read

    saved = read(adapter)
    given = {
        "title": title, "description": description, "weight": weight, "language": language,
        "channel": channel, "domain": domain, "speaker": speaker, "tags": tag,
    }  # fmt: skip
    told = {key: value for key, value in given.items() if value not in (None, [])}
    if clips is not None:
        from ..opening.loading import backbone_of
        from ..opening.probing import sound_on

        told["sound"] = sound_on(backbone_of(saved, weights, offline), clips).model_dump()
    try:
        made = AdapterCard.model_validate({**read_card(saved).model_dump(), **told})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConfigError(f"card: {first['loc'][0]}: {first['msg']}") from None
    if told:
        write_card(adapter, made)
    for key, value in made.model_dump(exclude={"format", "sound"}).items():
        if value:
            line(f"{key:<11} {', '.join(map(str, value)) if isinstance(value, tuple) else value}")
    if made.sound is not None:
        line(f"{'sound':<11} of {made.sound.clips} clips, {len(made.sound.mean)} numbers")


def _sound(there: "Catalogue", audio: Path, weights: str | None, offline: bool) -> Any:
    """How a recording sounds to the frozen model of the first adapter."""
    from ..opening.loading import backbone_of
    from ..opening.probing import features_of, sound_of

    backbone = backbone_of(there.entries[0].saved, weights, offline)
    return sound_of(backbone, next(features_of(backbone, audio)))[0][0].numpy()
