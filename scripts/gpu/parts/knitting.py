"""The trainings of scripts/measure_knitting_speech.py: the same command measures them elsewhere, in `run`."""

import subprocess
import sys
import time
from pathlib import Path

from place import Place

SCRIPT = Path(__file__).resolve().parents[2] / "measure_knitting_speech.py"


def main() -> None:
    place = Place.from_arguments()
    train = place.joined("train", "voices", "prompts_train", "sky")
    steps = (1, 1) if place.tiny else (2000, 900)
    given = [
        *(train, place.clips("strangers_valid"), "--only-train", "-o", place.out / "run"),
        *("--weights", place.weights("tiny.en"), "--device", place.device),
        *("--base-steps", steps[0], "--steps", steps[1]),
        *("--train-clips", 16 if place.tiny else 4000),
    ]
    began = time.perf_counter()
    subprocess.run([sys.executable, *map(str, [SCRIPT, *given])], check=True)
    place.result(seconds=round(time.perf_counter() - began, 1), steps=sum(steps))


if __name__ == "__main__":
    main()
