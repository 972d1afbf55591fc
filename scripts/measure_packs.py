#!/usr/bin/env python
"""What packs of languages gain, what a wrong one costs, and what it costs to tell which is right.

    python scripts/measure_packs.py PACKS cs=cs/test.jsonl nl=nl/test.jsonl [--limit 40] [--threads 1]

Prints a table of word error rates: of each language's clips by the frozen model at full context (told the
language), by every pack (told the language), and by packs that are chosen by what is heard; intervals of 95 %
by the bootstrap over clips, and how many clips got the right pack. Then, of all clips mixed:

    texts       how many differ between one run over all languages and a run for each
    states      the largest difference of a mixed batch's encoder states from those of single rows
    turning     recordings that change from one language to the next half way: errors of the base, of one pack
                for all of it, and of a pack for every stretch between pauses
    routing     CPU seconds of choosing by what is heard over those of all else, in the same runs: clip by
                clip, and of recordings of `--minutes` that clips of one language make, one after the other
    swap        CPU seconds of one pack in the place of another, over those of one clip's forward
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speech_peft.audio import io, manifest
from speech_peft.audio.rows.row import Row
from speech_peft.compose.packs import Packs
from speech_peft.metrics import bootstrap
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words
from speech_peft.transcribe.transcriber import Transcriber


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs")
    parser.add_argument("data", nargs="+", help="LANGUAGE=MANIFEST")
    parser.add_argument("--limit", type=int, default=40, help="clips of each language")
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 5])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    named = (d.partition("=") for d in options.data)
    rows = {code: spread(manifest.read(path), options.limit) for code, _, path in named}
    print(json.dumps({code: len(each) for code, each in rows.items()}), flush=True)
    packs = Packs.read(options.packs)
    first = next(iter(packs.opened().values()))
    waves = {code: [wave(row) for row in each] for code, each in rows.items()}

    base = Transcriber(first.backbone.id, engine="torch", vad="none", language=next(iter(rows)))
    for code in rows:
        said(base, code)
        tell(code, "base", rows[code], texts(base, waves[code]))
    del base
    for name, folder in packs.folders.items():
        one = Transcriber(adapter=folder, engine="torch", vad="none", language=next(iter(rows)))
        for code in rows:
            said(one, code)
            tell(code, f"pack {name}", rows[code], texts(one, waves[code]))
        del one
    routed = Transcriber(packs=options.packs, vad="none")
    alone = {}
    for code in rows:
        found = list(routed.transcribe(waves[code]))
        right = sum(packs.pack_of(code) in r.chosen[0][1].adapters for r in found)
        alone[code] = [r.text for r in found]
        tell(code, "chosen", rows[code], alone[code], right_pack=f"{right} of {len(found)}")
    together(routed, waves, alone)
    turning(first.backbone.id, packs, options.packs, rows, waves)
    routing(routed, waves, "clips")
    for minutes in options.minutes:
        code, clips = next(iter(waves.items()))
        routing(routed, {code: [long(clips, minutes)]}, f"{minutes:g} min")
    swap(packs, next(iter(waves.values()))[0])


def together(routed: Transcriber, waves: dict[str, list[Any]], alone: dict[str, list[str]]) -> None:
    """One run over all languages, clip by clip in turn, against a run for each."""
    order = sorted((i, code) for code, each in waves.items() for i in range(len(each)))
    mixed = texts(routed, [waves[code][i] for i, code in order])
    differ = sum(text != alone[code][i] for (i, code), text in zip(order, mixed, strict=True))
    model, backbone = routed.opened.model, routed.backbone
    names = [*list(model.methods)[: len(waves)], None]
    size = min(len(each[0]) for each in waves.values())
    audio = torch.stack([torch.from_numpy(next(iter(waves.values()))[0][:size])] * len(names))
    features = backbone.prepare(audio, torch.full((len(names),), size))
    with torch.inference_mode():
        with model.using_rows(*names):
            states = backbone.encode(features).states
        gap = 0.0
        for row, name in enumerate(names):
            with model.using(*([name] if name else [])):
                own = backbone.encode(features).states[row]
            gap = max(gap, float((states[row] - own).abs().max() / own.abs().max()))
    print(json.dumps({"texts_that_differ": differ, "of": len(mixed), "states_relative": gap}), flush=True)


def turning(base: str, packs: Packs, folder: str, rows: dict[str, list[Row]], waves: dict[str, Any]) -> None:
    """Clips of one language, one after the other, and behind them as many of the next in the list."""
    codes = list(rows)
    pairs = [(codes[0], codes[1])] if len(codes) == 2 else [*zip(codes, [*codes[1:], codes[0]], strict=True)]
    halves = [[joined(waves[code]) for code in pair] for pair in pairs]
    sounds = [np.concatenate(each) for each in halves]
    heard = {"base": [*Transcriber(base, engine="torch").transcribe(sounds)]}
    for by in ("file", "segment"):
        heard[f"packs by {by}"] = [*Transcriber(packs=folder, packs_by=by).transcribe(sounds)]
    for system, found in heard.items():
        whole, told = [], []
        for pair, (first, _), result in zip(pairs, halves, found, strict=True):
            whole.append(replace(rows[pair[0]][0], id="-".join(pair), text=""))
            whole[-1] = replace(whole[-1], text=" ".join(r.text or "" for code in pair for r in rows[code]))
            told += [
                packs.pack_of(pair[start * 16_000 >= len(first)]) in choice.adapters
                for start, choice in result.chosen
            ]
        right = f"{sum(told)} of {len(told)}"
        tell("turning", system, whole, [result.text for result in found], right_pack=right)


def joined(clips: Sequence[Any]) -> Any:
    """One after the other, a second of silence behind each."""
    return np.concatenate([np.pad(clip, (0, 16_000)) for clip in clips])


def routing(routed: Transcriber, waves: dict[str, list[Any]], what: str) -> None:
    """Choosing by what is heard, as a share of all else. Both are of one run: another meets another load."""
    choosing, choose = 0.0, routed._choose

    def timed(*given: Any) -> Any:
        nonlocal choosing
        start = time.process_time()
        found = choose(*given)
        choosing += time.process_time() - start
        return found

    said(routed, None)
    routed._choose = timed  # type: ignore[method-assign]
    whole = sum(cpu(lambda each=each: texts(routed, each)) for each in waves.values())
    del routed._choose
    line = {"of": what, "all_cpu": whole, "choosing_cpu": choosing, "routing": choosing / (whole - choosing)}
    print(json.dumps(line), flush=True)


def long(clips: list[Any], minutes: float) -> Any:
    """So many minutes of clips, over and over."""
    wanted, once = round(minutes * 60 * 16_000), joined(clips)
    return np.tile(once, 1 + wanted // len(once))[:wanted]


def swap(packs: Packs, clip: Any) -> None:
    """One pack in the place of another, in a transcriber that is open: when it is new, and again."""
    first, *others = packs.folders.values()
    one = Transcriber(adapter=first, engine="torch", vad="none")
    forward = min(cpu(lambda: texts(one, [clip])) for _ in range(3))
    new = min(cpu(lambda other=other: one.swap(other)) for other in others)
    again = min(cpu(lambda other=other: one.swap(other)) for other in [first, *others] * 2)
    line = {"clip_cpu": forward, "clip_seconds": len(clip) / 16_000, "swap_cpu": new, "again_cpu": again}
    print(json.dumps(line | {"swap": new / forward, "again": again / forward}))


def cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def said(transcriber: Transcriber, language: str | None) -> None:
    transcriber.options = replace(transcriber.options, language=language)


def texts(transcriber: Transcriber, clips: list[Any]) -> list[str]:
    return [result.text for result in transcriber.transcribe(list(clips))]


def spread(rows: Sequence[Row], many: int) -> list[Row]:
    """So many of them, or all, in an even spread."""
    many = min(many, len(rows))
    return [rows[round(i * (len(rows) - 1) / max(1, many - 1))] for i in range(many)]


def wave(row: Row) -> Any:
    return io.load(Path(row.audio), start=row.start, duration=row.duration).samples


def tell(code: str, system: str, rows: list[Row], heard: list[str], **more: object) -> None:
    clean = normaliser("auto")
    pairs = align_words([clean(r.text or "", code) for r in rows], [clean(text, code) for text in heard])
    errors = [sum(p.operation != "equal" for p in pair) for pair in pairs]
    words = [sum(p.operation != "insert" for p in pair) for pair in pairs]
    within = bootstrap.interval(errors, words, [row.id for row in rows])
    line = {
        "language": code,
        "system": system,
        "wer": round(sum(errors) / sum(words), 4),
        "low": within and round(within.low, 4),
        "high": within and round(within.high, 4),
    }
    print(json.dumps(line | more), flush=True)


if __name__ == "__main__":
    main()
