#!/usr/bin/env python
"""How near the waveforms of a decoder are to clean recordings, and what they cost, by rounds.

    python scripts/measure_decoder.py ADAPTER --data clean.jsonl [--steps 1 2 3 4 5] [--clips 12]

ADAPTER is the folder of a trained waveform decoder. Clean recordings go through the frozen encoder, with the
adapter that lies there, and the decoder makes them anew. Prints a JSON line for each number of rounds (one
for a decoder that makes its waveform at once): `convergence` and `log_magnitude` are the losses of the
multi-resolution short-time spectrum at the decoder's rate and the recording's level (which the states do not
tell, and `restore` keeps), `rtf` is seconds of work for one of audio.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from speech_peft.audio import io, manifest
from speech_peft.decoders.spectral import MultiResolutionStft
from speech_peft.restore.restorer import Restorer

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    restorer = Restorer(options.adapter, guard=None)
    clips = [io.load(row.audio, RATE).samples for row in manifest.read(options.data)[: options.clips]]
    made(restorer, clips[0], None)  # nothing is loaded in the time
    for steps in options.steps if restorer.decoder.iterative else [None]:
        print(
            json.dumps({"suite": "decoder", "adapter": options.adapter, **measured(restorer, clips, steps)})
        )


def measured(restorer: Restorer, clips: list[np.ndarray], steps: int | None) -> dict[str, Any]:
    """Means over the clips."""
    distance = MultiResolutionStft(restorer.decoder.sample_rate)
    losses, work = [], 0.0
    for clip in clips:
        started = time.perf_counter()
        wave = made(restorer, clip, steps)
        work += time.perf_counter() - started
        clean = torch.from_numpy(soxr.resample(clip, RATE, restorer.decoder.sample_rate))[None]
        size = min(wave.shape[1], clean.shape[1])
        wave, clean = wave[:, :size], clean[:, :size]
        level = (clean.square().mean() / wave.square().mean().clamp_min(1e-12)).sqrt()
        losses.append(distance(level * wave, clean))
    means = {name: round(float(torch.stack([one[name] for one in losses]).mean()), 4) for name in losses[0]}
    seconds = sum(map(len, clips)) / RATE
    return {"steps": steps, **means, "rtf": round(work / seconds, 4), "threads": torch.get_num_threads()}


@torch.inference_mode()
def made(restorer: Restorer, clip: np.ndarray, steps: int | None) -> torch.Tensor:
    """The decoder's waveform, shape (1, s) at its rate."""
    backbone, audio = restorer.opened.backbone, torch.from_numpy(clip)[None]
    states = backbone.encode(backbone.prepare(audio, torch.tensor([len(clip)]))).states
    return restorer.decoder(states, audio, generator=torch.Generator().manual_seed(0), steps=steps)


if __name__ == "__main__":
    main()
