"""Where a part of scripts/on_gpu works: data and weights, device and time, and how it runs our commands."""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """What a part is given."""

    beside: Path
    out: Path
    device: str
    seconds: float
    tiny: bool
    """A rehearsal: the same way with as little work as there can be, on any device."""

    @classmethod
    def from_arguments(cls) -> "Place":
        parser = argparse.ArgumentParser()
        parser.add_argument("beside", type=Path)
        parser.add_argument("out", type=Path)
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--seconds", type=float, default=60.0)
        parser.add_argument("--tiny", action="store_true")
        return cls(**vars(parser.parse_args()))

    def weights(self, name: str) -> Path | None:
        """The folder of these weights, where they were packed."""
        folder = self.beside / "weights" / name
        return folder if (folder / "model.bin").exists() or (folder / "config.json").exists() else None

    def clips(self, name: str) -> Path | None:
        """The manifest of these clips, where they were packed."""
        path = self.beside / "clips" / f"{name}.jsonl"
        return path if path.exists() else None

    def joined(self, name: str, *parts: str) -> Path:
        """One manifest of the clips of several."""
        from speech_peft.audio import manifest

        found = [path for part in parts if (path := self.clips(part))]
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.jsonl"
        manifest.write(path, [row for part in found for row in manifest.read(part)])
        return path

    def run(self, command: str, *arguments: object) -> float:
        """One of our commands in a process of its own; its seconds. Raises CalledProcessError."""
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", f"speech_peft.{command}", *map(str, arguments)], check=True)
        return time.perf_counter() - began

    def train(
        self, recipe: str, weights: Path, valid: str, share: float, batch: int, **settings: object
    ) -> float:
        """Train a recipe in `out/run` for a share of the time, on all voices and the prompts; its seconds.

        `batch` is in seconds of audio; `__` in a setting's name is a dot.
        """
        known: dict[str, object] = {
            "out": self.out / "run",
            "trainer__accelerator": "cpu" if self.device == "cpu" else "gpu",
            "trainer__devices": 1,
            "backbone__weights": weights,
            "data__train": self.joined("train", "voices", "prompts_train"),
            "data__valid": self.clips(valid),
            "data__max_valid": 2 if self.tiny else 64,
            "data__seconds_per_batch": 8 if self.tiny else batch,
            "data__workers": 0 if self.tiny else 4,
        }
        if self.tiny:
            known["trainer__max_steps"] = 1
        else:
            known["trainer__max_minutes"] = share * self.seconds / 60
        dotted = [f"{key.replace('__', '.')}={value}" for key, value in (known | settings).items()]
        return self.run("train", recipe, *dotted)

    def rates(
        self, adapter: Path | None, weights: Path, data: Path, out: Path, *more: object
    ) -> dict[str, Any]:
        """Word error rates with their intervals, and the speed, of the base and of an adapter."""
        asked = ["--base", "--weights", weights, *(["--adapter", adapter] if adapter else [])]
        limit = ["--limit", 2] if self.tiny else []
        self.run("bench", "asr", "--data", data, "-o", out, "--device", self.device, *asked, *limit, *more)
        runs = json.loads((out / "scores.json").read_text())["runs"]
        return {name: {"wer": run["wer"], "rtfx": run["rtfx"], "n": run["n"]} for name, run in runs.items()}
