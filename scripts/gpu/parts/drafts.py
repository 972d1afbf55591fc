"""Letters as drafts for the stock decoder: windows of all speech, with what it writes of them, spelled."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from place import Place

SCRIPT = Path(__file__).resolve().parents[2] / "own_texts.py"
PROCESSES = 6


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("tiny.en")
    lines = place.joined("speech", *place.speech()).read_text().splitlines()
    lines, processes = (lines[:8], 2) if place.tiny else (lines, PROCESSES)

    def written(number: int) -> Path:
        piece, out = place.out / f"speech_{number}.jsonl", place.out / f"own_{number}"
        piece.write_text("\n".join(lines[number::processes]) + "\n")
        how = ["--device", place.device, "--batch", "2" if place.tiny else "48", "--weights", str(weights)]
        least = "4" if number % 2 else "16"  # short ones too
        command = [sys.executable, str(SCRIPT), str(piece), "-o", str(out), "--join", least, "29", *how]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return out / "all.jsonl"

    with ThreadPoolExecutor(processes) as pool:
        own = list(pool.map(written, range(processes)))
    seconds = place.train(
        "asr/whisper_drafts",
        weights,
        "strangers_valid",
        place.left(),
        480,
        data__train=place.joined("own", *own),
        data__join="null",
        data__cache="{where: memory, dtype: float16}",
        data__workers=0 if place.tiny else 3,
        trainer__valid_every_steps=500,
    )
    place.trained(seconds)


if __name__ == "__main__":
    main()
