"""A training run small enough for tests: chirps with words, a random tiny backbone, a few steps.

Run as a script it is `speech_peft.train` on the tiny backbone, for tests that kill it:
tiny.py RECIPE [key=value ...].
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from speech_peft.backbones import base, families
from speech_peft.recipe import config
from speech_peft.train import __main__ as train
from speech_peft.train import fit

WORDS = ("one", "two", "three", "four")


def corpus(folder: Path, clips: int = 12, seconds: float | None = None, speakers: int = 0) -> Path:
    """A manifest of chirps of 0.4 to 1.3 s (or of one length), each with two words, a class and a fold.

    They are of so many `speakers` in turn; of 0, nobody is named.
    """
    random = np.random.default_rng(0)
    rows = []
    for i in range(clips):
        length = seconds or 0.4 + 0.9 * random.random()
        time = np.arange(int(16000 * length)) / 16000
        wave = 0.3 * np.sin(2 * np.pi * (200 + 100 * i) * time * (1 + time))
        soundfile.write(folder / f"{i}.wav", wave + 0.01 * random.standard_normal(len(time)), 16000)
        text = f"{WORDS[i % 4]} {WORDS[i // 4 % 4]}"
        row = {"id": str(i), "audio": f"{i}.wav", "duration": len(time) / 16000, "text": text}
        row |= {"speaker": f"voice {i % speakers}"} if speakers else {}
        rows.append({**row, "label": WORDS[i % 3], "fold": i % 10 + 1})
    manifest = folder / "train.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def recipe(folder: Path, decoder: Any = "whisper", **changes: Any) -> Path:
    """A recipe file on a corpus made beside it; `changes` replace top-level parts field by field."""
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        corpus(data)
    tree: dict[str, Any] = {
        "out": str(folder / "run"),
        "backbone": {"name": "whisper", "weights": "tiny", "context": "fit"},
        "adapters": {"a": {"method": "bottleneck", "width": 8, "sites": ["layers.*.ffn"]}},
        "task": {"name": "asr", "decoder": decoder},
        "data": {"train": str(data / "train.jsonl"), "seconds_per_batch": 4, "workers": 0},
        "optim": {"lr": 1e-2},
        "trainer": {
            "max_steps": 6,
            "log_every_steps": 1,
            "max_trainable_pct": 90,
            "accelerator": "cpu",
            "precision": "32-true",
        },
    }
    if "name" in changes.get("task", {}):
        tree["task"] = {}
    for part, fields in changes.items():
        tree[part] = {**tree[part], **fields} if isinstance(fields, dict) and part != "adapters" else fields
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def use_tiny_backbones() -> None:
    """Every address of weights now gives a random tiny backbone; tiny:FAMILY chooses among conformers."""

    def open_tiny(
        name: str, weights: str, revision: str | None = None, offline: bool = False, **options: Any
    ) -> base.Backbone:
        if name == "conformer" and weights.startswith("tiny:"):
            options["family"] = weights.removeprefix("tiny:")
        backbone = families.tiny(name, **options)
        if (
            name == "whisper"
        ):  # random tokens of standard deviation 0.02 are too alike for any state to tell apart
            backbone.module.proj_out.weight.data.mul_(20)
        return backbone

    families.open_backbone = open_tiny


def run(path: Path, *overrides: str, resume: bool = False) -> fit.Trained:
    """Train as the recipe says, in this process."""
    return fit.train(config.read(str(path), overrides), resume)


if __name__ == "__main__":
    use_tiny_backbones()
    raise SystemExit(train.main(sys.argv[1:]))
