#!/usr/bin/env python
"""Which adapter a trained fusion listens to: by channel and block, and in clips that change in the middle.

    python scripts/explain_fusion.py --test corpora/queen/test.jsonl -o runs/measure_fusion

Reads what `measure_fusion.py` left there. Prints the mean weight of each adapter over clips of each channel,
what clips that go from clean to another channel at half their length do to the weight of its adapter, and
whether every adapter alone is what it was before the fusion.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure_fusion import CHANNELS, FOUR, in_channel, tested

import speech_peft as sp
from speech_peft.audio import io
from speech_peft.audio.manifest import Row
from speech_peft.opening.adapted import Adapted

RATE, FRAME = 16_000, 320


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_fusion"))
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--fusion", default="fusion/fuse", help="Which, below OUT.")
    options = parser.parse_args()
    model = sp.load(options.out / options.fusion)
    rows = [row for row in tested(options.test, options.clips) if (row.duration or 0) < 29]
    heard = {name: _sounds(in_channel(name, rows, options.out)) for name in CHANNELS}
    by_channel(model, heard)
    for channel in FOUR[1:]:
        in_the_middle(model, channel, heard["plain"], heard[channel])
    taken_off(model, options.out, heard["plain"])


def by_channel(model: Adapted, heard: dict[str, list[np.ndarray]]) -> None:
    limit, found = 1 / len(FOUR) + 0.1, {}
    for channel, clips in heard.items():
        each = [torch.stack([block.mean(0) for block in weights_of(model, clip)]) for clip in clips]
        blocks = torch.stack(each).mean(0)
        found[channel] = int((blocks[:, FOUR.index(channel)] > limit).sum())
        for number, block in enumerate(blocks.tolist()):
            told = ", ".join(f"{name} {w:.2f}" for name, w in zip(FOUR, block, strict=True))
            print(f"{channel}, block {number}: {told}")
    print(f"blocks where the right adapter has more than {limit:.2f}: {found} of {len(model.sites['fuse'])}")


def in_the_middle(
    model: Adapted, channel: str, clean: Sequence[np.ndarray], other: Sequence[np.ndarray]
) -> None:
    """The mean weight of a channel's adapter before and after, of clips that turn into it half way."""
    place, changes = FOUR.index(channel), []
    for one, two in zip(clean, other, strict=True):
        middle = len(one) // 2
        blocks = weights_of(model, np.concatenate([one[:middle], two[middle:]]))
        at = middle // FRAME
        changes.append([[b[:at, place].mean().item(), b[at:, place].mean().item()] for b in blocks])
    for number, (before, after) in enumerate(np.mean(changes, 0).tolist()):
        rose = np.mean([clip[number][1] > clip[number][0] for clip in changes])
        print(f"to {channel}, block {number}: {before:.2f} -> {after:.2f}, up in {rose:.0%} of the clips")


def taken_off(model: Adapted, out: Path, clips: Sequence[np.ndarray]) -> None:
    for name in FOUR:
        alone = sp.load(out / name / name)
        with model.using(name):
            same = all(torch.equal(_states(model, clip), _states(alone, clip)) for clip in clips[:4])
        print(f"{name} without the fusion is bit for bit what it was: {same}")


@torch.no_grad()
def weights_of(model: Adapted, samples: np.ndarray) -> list[torch.Tensor]:
    """By block, `(frame, adapter)` of the frames that hold sound."""
    parts = [model.at("fuse", site) for site in model.sites["fuse"]]
    for part in parts:
        part.notes.listen()  # type: ignore[union-attr]
    _states(model, samples)
    own = len(samples) // FRAME
    return [part.notes.end()[0].weights[0, :own] for part in parts]  # type: ignore[union-attr]


@torch.no_grad()
def _states(model: Adapted, samples: np.ndarray) -> torch.Tensor:
    assert model.backbone is not None
    sound = torch.from_numpy(np.ascontiguousarray(samples))[None].float()
    return model.backbone.encode(model.backbone.prepare(sound, torch.tensor([sound.shape[1]]))).states


def _sounds(rows: Sequence[Row]) -> list[np.ndarray]:
    return [io.load(row.audio, RATE).samples for row in rows]


if __name__ == "__main__":
    main()
