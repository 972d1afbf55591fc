"""What Whisper itself writes of the clips of a manifest: texts that drafts for its decoder are learned from.

    python scripts/own_texts.py corpus/train.jsonl -o corpus/own --join 14 29

Writes OUT/all.jsonl with the frozen model's greedy text of each clip; what was said stands beside it as
`said`. With `--join` clips are put behind each other first, in a random order, to windows of so many seconds
(OUT/audio/*.flac), as long recordings are cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.backbones.whisper import Whisper
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.opening.loading import load
from speech_peft.recipe.parts import JoinConfig
from speech_peft.train.data.joined import Windows

RATE = 16_000
LONGEST = 29.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--join", type=float, nargs=2, metavar=("LEAST", "MOST"))
    parser.add_argument("--weights")
    parser.add_argument("--context", choices=("full", "fit"), default="full")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = [row for path in options.manifests for row in manifest.read(path)]
    if options.join:
        rows = list(windows(rows, options.out / "audio", options.join, options.seed))
    opened = load(None, options.weights, options.device, context=options.context)
    assert isinstance(opened.backbone, Whisper)
    written: list[Row] = []
    for at in range(0, len(rows), options.batch):
        some = rows[at : at + options.batch]
        written += [
            replace(row, text=text, extra={**row.extra, "said": row.text})
            for row, text in zip(some, texts(opened.backbone, some, options.device), strict=True)
            if text.strip()
        ]
        print(f"{at + len(some)} of {len(rows)}", flush=True)
    manifest.write(options.out / "all.jsonl", written)


@torch.inference_mode()
def texts(whisper: Whisper, rows: Sequence[Row], device: str) -> list[str]:
    """The greedy text of each clip."""
    sounds = [torch.from_numpy(io.load(row.audio, RATE, row.start, row.duration).samples) for row in rows]
    lengths = torch.tensor([len(sound) for sound in sounds], device=device)
    audio = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True).to(device)
    encoded = whisper.encode(whisper.prepare(audio, lengths))
    return [one.text for one in greedy(whisper, encoded.states)]


def windows(rows: Sequence[Row], folder: Path, seconds: tuple[float, float], seed: int) -> Iterator[Row]:
    """Clips in a random order, put behind each other as training joins them, all of them to windows."""
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    rows = [rows[i] for i in order if rows[i].duration < LONGEST]
    joined = JoinConfig(share=1.0, seconds=seconds)
    folder.mkdir(parents=True, exist_ok=True)
    for number, window in enumerate(Windows([row.duration for row in rows], joined, seed).of(0)):
        parts = []
        for index, pause in zip(window.clips, (*window.pauses, 0.0), strict=True):
            row = rows[index]
            parts += [io.load(row.audio, RATE, row.start, row.duration).samples]
            parts += [np.zeros(round(RATE * pause), np.float32)]
        sound, path = np.concatenate(parts), folder / f"{number:05d}.flac"
        soundfile.write(path, sound, RATE)
        said = " ".join((rows[index].text or "").strip() for index in window.clips)
        yield Row(path.stem, path, duration=len(sound) / RATE, text=said)


if __name__ == "__main__":
    main()
