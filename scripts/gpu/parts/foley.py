"""This kind of sound, at these moments: a small diffusion of five classes, then adapters in it, frozen."""

import subprocess
import sys
from pathlib import Path

from place import SOUNDS, Place

FOLDS = "{{fold: [{}], label: [" + ",".join(SOUNDS) + "]}}"
SCRIPTS = Path(__file__).resolve().parents[2]


def main() -> None:
    place = Place.from_arguments()
    sounds, untrained, mel = place.clips("sounds"), place.out / "untrained", place.out / "mel"
    made = [sys.executable, SCRIPTS / "new_mel_diffusion.py", sounds, untrained, "--classes", *SOUNDS]
    subprocess.run([*map(str, made)], check=True)
    same = {
        "data__train": sounds,
        "data__train_where": FOLDS.format("1,2"),
        "data__valid_where": FOLDS.format("3"),
        "data__max_valid": None,
    }
    base = place.out / "base"
    spent = place.train(
        "generate/mel_diffusion", untrained, "sounds", 0.48, 80, **same, out=base, trainer__max_steps=8000
    )
    place.run("export", base / "base", "--to", "hf", "-o", mel)
    listener = f"{{name: whisper, weights: {place.weights('tiny.en')}, context: fit}}"
    seconds = place.train(
        "generate/foley", mel, "sounds", 0.36, 80, **same, task__listener=listener, trainer__max_steps=4000
    )
    place.trained(seconds, diffusion_seconds=round(spent, 1))


if __name__ == "__main__":
    main()
