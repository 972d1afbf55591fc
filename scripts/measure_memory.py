#!/usr/bin/env python
"""Peak memory of a command on a long recording, against that on a short one.

    python scripts/measure_memory.py [classify] [transcribe] [--seconds 3600] [--short 60] [--audio FILE]

Makes both recordings, runs `python -m speech_peft.COMMAND` on each in a process of its own, and prints a JSON
line for each command: both peaks of resident memory and their ratio. The recordings are bursts of noise, or
`--audio` over and over; transcribing takes every burst for speech, so it works as much as on a real one.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commands", nargs="*", default=["classify", "transcribe"])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--short", type=float, default=60.0, help="Seconds of the recording compared with.")
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--adapter", action="append", help="For classify; an untrained one if not given.")
    parser.add_argument("--context", default="fit", help="For transcribe.")
    parser.add_argument("--batch-seconds", default="300")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for length, seconds in (("short", options.short), ("long", options.seconds)):
            write(folder / f"{length}.wav", seconds, options.audio)
        for command in options.commands:
            more = ["--batch-seconds", options.batch_seconds]
            if command == "transcribe":
                more += ["--context", options.context] + ([] if options.audio else ["--vad", "energy"])
            else:
                for adapter in options.adapter or untrained(folder):
                    more += ["--adapter", str(adapter)]
            short, long = (
                peak(command, folder / f"{length}.wav", folder / f"{command}_{length}", more)
                for length in ("short", "long")
            )
            line = {
                "suite": "memory",
                "command": command,
                "ratio": round(long["peak_mb"] / short["peak_mb"], 4),
                "short": short,
                "long": long,
                "arguments": [part for part in more if not part.startswith(name)],
                "python": platform.python_version(),
                "machine": platform.machine(),
            }
            print(json.dumps(line), flush=True)


def write(path: Path, seconds: float, audio: Path | None) -> None:
    """A recording of this length, written in pieces."""
    left = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for piece in pieces(audio):
            file.write(piece[:left])
            left -= len(piece)
            if left <= 0:
                return


def pieces(audio: Path | None) -> Iterator[np.ndarray]:
    """A minute of bursts, or the samples of a recording, without end."""
    if audio is None:
        time_ = np.arange(60 * RATE) / RATE
        envelope = np.maximum(0, np.sin(2 * np.pi * 3 * time_)) * (np.sin(2 * np.pi * 0.07 * time_) > -0.6)
        samples = 0.3 * np.random.default_rng(0).standard_normal(len(time_)) * envelope
    else:
        from speech_peft.audio import io

        samples = io.load(audio, RATE).samples
    while True:
        yield samples


def untrained(folder: Path) -> list[Path]:
    """In a process of its own: a child that is forked from a large process begins as large."""
    code = "import sys, pathlib, untrained_adapters; untrained_adapters.make(pathlib.Path(sys.argv[1]), 1)"
    subprocess.run(
        [sys.executable, "-c", code, str(folder / "adapters")], check=True, cwd=Path(__file__).parent
    )
    return sorted((folder / "adapters").iterdir())


def peak(command: str, recording: Path, out: Path, more: list[str]) -> dict[str, float]:
    """Run the command on the recording; the peak of its resident memory in MB, and its seconds."""
    began = time.perf_counter()
    arguments = [
        sys.executable,
        "-m",
        f"speech_peft.{command}",
        str(recording),
        "-o",
        str(out),
        *more,
        "--quiet",
    ]
    process = subprocess.Popen(arguments)
    _, status, usage = os.wait4(process.pid, 0)  # of this child alone, where getrusage has that of all so far
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} on {recording.name} ended with {process.returncode}")
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return {
        "peak_mb": round(usage.ru_maxrss / unit, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "audio_seconds": round(soundfile.info(recording).duration, 1),
    }


if __name__ == "__main__":
    main()
