"""Where adapters can sit: `speech-peft sites WEIGHTS`, a line a kind of site, checked against the modules."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..folders.options import ADDRESS, Offline
from ..terminal.door import line
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from ..backbones.base import Backbone
    from ..core.site import Site

app = new_app()


@app.command(no_args_is_help=True)
def sites(
    weights: Annotated[
        str, typer.Argument(help=f"{ADDRESS}; tiny:FAMILY for a random one. FAMILY:WEIGHTS says the family.")
    ],
    family: Annotated[
        str | None, typer.Option(help="Of tiny:conformer: wav2vec2-bert, wav2vec2-conformer or parakeet.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every block, not one line for all of them.")] = False,
    offline: Offline = False,
) -> None:
    """List the sites of a model: name, kind, width, and the modules where each begins and ends."""
    backbone = opened(weights, family, offline)
    what = f"{type(backbone.module).__name__}: {backbone.card()}, {backbone.frame_rate:g} states a second"
    line(what)
    line("")
    line(f"{'site':32} {'kind':7} {'width':13} {'length':7} entry -> exit")
    for one in lines(backbone.sites(), every):
        line(one)


def opened(weights: str, family: str | None, offline: bool) -> "Backbone":
    """The backbone at WEIGHTS, FAMILY:WEIGHTS or tiny:FAMILY."""
    from ..backbones.families import open_backbone, tiny
    from ..backbones.in_memory import open_weights
    from ..registry import BACKBONES

    name, _, rest = weights.partition(":")
    options: dict[str, Any] = {"family": family} if family else {}
    if name == "tiny":
        return tiny(rest, **options)
    if name in list(BACKBONES):
        return open_backbone(name, rest, offline=offline, **options)
    return open_weights(weights, offline=offline, **options)


def lines(found: "Iterable[Site]", every_block: bool) -> list[str]:
    """The table; unless all blocks are wanted, what differs by the block's number only is one line with N."""
    shown: dict[str, str] = {}
    for site in found:
        width = f"{site.dim_in} -> {site.dim_out}"
        path = site.entry if site.entry == site.exit else f"{site.entry} -> {site.exit}"
        name = site.name
        if not every_block and name.endswith(".stack") and "layers." in name:
            name, path = re.sub(r"layers\.\d+", "layers.N", name), re.sub(r"\.\d+ ->", ".N ->", path)
        elif not every_block and site.kind != "stack":
            name, path = (re.sub(r"(^|\.)\d+(?=\.| |$)", r"\1N", text) for text in (name, path))
        length = "fixed" if site.fixed_length else "free"
        shown.setdefault(name, f"{name:32} {site.kind:7} {width:13} {length:7} {path}")
    return list(shown.values())


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "sites")


if __name__ == "__main__":
    raise SystemExit(main())
