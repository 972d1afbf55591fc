"""The parts of scripts/on_gpu, each a process with a budget; OUT/PART.json is what a part found."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """One thing to measure."""

    name: str
    share: float
    """Of the whole time."""
    together: bool = False
    """With its neighbours of the same kind at one time: trainings, whose speed nobody quotes."""
    named: bool = False
    """Only where `--only` names it: it trains what is measured elsewhere, for a card that is lent."""


# Trainings take half: what they made is tested as well, at about 75 x real time on an H100.
PARTS = (
    Part("fit", 0.55, together=True),
    Part("noisy", 0.55, together=True),
    Part("vocoder", 0.55, together=True),
    Part("lora", 0.1),
    Part("speed", 0.2),
    Part("laws", 0.1),
    Part("parallel", 0.05),
    Part("speech", 0.1, named=True),
    Part("lengths", 0.2, named=True),
    Part("drafts", 1.0, together=True, named=True),
    Part("diffusion", 1.0, together=True, named=True),
    Part("diffusion_base", 0.78, together=True, named=True),
    Part("views", 1.0, together=True, named=True),
    Part("speaker", 1.0, together=True, named=True),
    Part("foley", 1.0, together=True, named=True),
    Part("knitting", 1.0, together=True, named=True),
    Part("bridge", 0.78, together=True, named=True),
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", action="extend", nargs="+", choices=[part.name for part in PARTS])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "machine.json").write_text(json.dumps(machine(options.device), indent=2) + "\n")
    names = options.only or [part.name for part in PARTS if not part.named]
    wanted = [part for part in PARTS if part.name in names]
    missing = [part for part in wanted if not (options.out / f"{part.name}.json").exists()]
    end = time.monotonic() + 60 * options.minutes
    while missing:
        group = [part for part in missing if part.together] if missing[0].together else missing[:1]
        missing = [part for part in missing if part not in group]
        running = {part: start(part, options) for part in group}
        until = end - 60 * options.minutes * kept(missing)
        for part, process in running.items():
            finish(part, process, options, until)
    for part in wanted:
        found = options.out / f"{part.name}.json"
        print(f"{part.name}: {found.read_text() if found.exists() else 'nothing'}", flush=True)


def kept(missing: list[Part]) -> float:
    """The share of the time that is kept for parts which are still to come."""
    alone = sum(part.share for part in missing if not part.together)
    return alone + max((part.share for part in missing if part.together), default=0.0)


def start(part: Part, options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """A part at its work; it writes its result to OUT/PART.json and its words to OUT/PART.log."""
    seconds = 60 * options.minutes * part.share
    given = [
        options.folder,
        options.out / part.name,
        f"--device={options.device}",
        f"--seconds={seconds:.0f}",
    ]
    given += ["--tiny"] * options.tiny
    command = [sys.executable, str(HERE / "parts" / f"{part.name}.py"), *map(str, given)]
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]  # where `place` is
    print(f"{part.name}: begins, {seconds:.0f} s", flush=True)
    with (options.out / f"{part.name}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )


def finish(part: Part, process: "subprocess.Popen[bytes]", options: argparse.Namespace, until: float) -> None:
    """Wait for it as long as there is time, keep its result, and say how it went."""
    try:
        code = process.wait(max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # and the commands that it runs
        code = process.wait()
    log = (options.out / f"{part.name}.log").read_text(errors="replace")
    result = options.out / part.name / "result.json"
    if result.exists():
        (options.out / f"{part.name}.json").write_text(result.read_text())
    print(f"{part.name}: ended with {code}{'' if code == 0 else chr(10) + log[-3000:]}", flush=True)


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch
    import transformers

    card = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor()
    return {
        "card": card,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
