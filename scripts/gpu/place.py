"""Where a part of scripts/on_gpu works: data and weights, device and time, and how it runs our commands."""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BEGAN = time.monotonic()


SOUNDS = ("baby_cry", "clock_tick", "dog_bark", "person_sneeze", "rooster")
"""The classes of ESC that a diffusion learns to make."""


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

    def joined(self, name: str, *parts: str | Path) -> Path:
        """One manifest of the clips of several: names of what was packed, and manifests of others."""
        from speech_peft.audio import manifest
        from speech_peft.cli.data import one_list

        paths = [self.clips(part) if isinstance(part, str) else part for part in parts]
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.jsonl"
        manifest.write(path, one_list([manifest.read(path) for path in paths if path]))
        return path

    def spoken(self, patience: float = 150.0) -> list[Path]:
        """The manifest of the part `speech` beside this one: waited for where that is at work, else none."""
        made = self.out.parent / "speech" / "all.jsonl"
        until = time.monotonic() + patience
        while made.parent.exists() and not made.exists() and time.monotonic() < until:
            time.sleep(1)
        return [made] if made.exists() else []

    def speech(self) -> list[str | Path]:
        """All that is there to learn English from: actors of two games, prompts, synthetic voices."""
        return ["voices", "prompts_train", "sky", *self.spoken()]

    def adapter(self, name: str) -> Path | None:
        """The folder of an adapter that was packed."""
        folder = self.beside / "adapters" / name
        return folder if (folder / "adapter.json").exists() else None

    def beginning(self, name: str, weights: Path, adapter: Path | None) -> Path:
        """Weights with an adapter merged into them, in `out/name`; the weights where there is no adapter."""
        merged = self.out / name
        if adapter is not None and not merged.exists():
            self.run("export", adapter, "--to", "hf", "-o", merged, "--weights", weights)
        return weights if adapter is None else merged

    def run(self, command: str, *arguments: object) -> float:
        """One of our commands in a process of its own; its seconds. Raises CalledProcessError."""
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", f"speech_peft.{command}", *map(str, arguments)], check=True)
        return time.perf_counter() - began

    def train(
        self, recipe: str, weights: Path, valid: str, share: float, batch: int, **settings: object
    ) -> float:
        """Train a recipe in `out/run` for a share of the time, on all voices and the prompts; its seconds.

        `batch` is in seconds of audio; `__` in a setting's name is a dot, and None takes what is known away.
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
            settings |= {"trainer__max_steps": 1, "trainer__valid_every_steps": None}
        else:
            known["trainer__max_minutes"] = share * self.seconds / 60
        asked = {key: value for key, value in (known | settings).items() if value is not None}
        return self.run(
            "train", recipe, *(f"{key.replace('__', '.')}={value}" for key, value in asked.items())
        )

    def left(self, share: float = 0.88) -> float:
        """The share of its time that a part may still train for: what it has waited is taken off."""
        return max(0.1, share - (time.monotonic() - _BEGAN) / self.seconds)

    def trained(self, seconds: float, **more: object) -> None:
        """Write what a training came to as the part's result: it is measured elsewhere."""
        self.result(seconds=round(seconds, 1), steps=self.steps(), **more)

    def steps(self) -> int:
        """How many its training took."""
        lines = (self.out / "run" / "metrics.jsonl").read_text().splitlines()
        return max(json.loads(line).get("step", 0) for line in lines)

    def result(self, **found: object) -> None:
        """Write what the part found."""
        (self.out / "result.json").write_text(json.dumps(found, indent=2, default=str) + "\n")

    def rates(
        self, adapter: Path | None, weights: Path, data: Path, out: Path, *more: object
    ) -> dict[str, Any]:
        """Word error rates with their intervals, and the speed, of the base and of an adapter."""
        asked = ["--base", "--weights", weights, *(["--adapter", adapter] if adapter else [])]
        limit = ["--limit", 2] if self.tiny else []
        self.run("bench", "asr", "--data", data, "-o", out, "--device", self.device, *asked, *limit, *more)
        runs = json.loads((out / "scores.json").read_text())["runs"]
        return {name: {"wer": run["wer"], "rtfx": run["rtfx"], "n": run["n"]} for name, run in runs.items()}
