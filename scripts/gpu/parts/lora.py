"""Training steps of a LoRA on Whisper, ours beside PEFT's, in turn; the sides are the CPU comparison's."""

import sys
from pathlib import Path
from statistics import median

from place import Place

SCRIPTS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SCRIPTS))

from peers.side import Side  # noqa: E402


def main() -> None:
    place = Place.from_arguments()
    place.out.mkdir(parents=True, exist_ok=True)
    weights = place.weights("base") or place.weights("tiny.en")
    worker, batch = SCRIPTS / "peers" / "lora_worker.py", 2 if place.tiny else 16
    sides = {
        side: Side(sys.executable, worker, side, weights, 2, place.device, batch) for side in ("ours", "peft")
    }
    steps = 2 if place.tiny else 40
    answers = {side: [] for side in sides}
    for step in range(steps + 3):
        for side, worker in sides.items():
            answers[side].append(worker.ask(step=step))
    kept = {side: each[3:] or each for side, each in answers.items()}
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(*kept.values(), strict=True)]
    result = {
        "weights": weights.name,
        "batch of 30 s": batch,
        **{f"{side}, steps a second": 1 / median(a["seconds"] for a in each) for side, each in kept.items()},
        **{f"{side}, peak MB": each[-1]["peak_mb"] for side, each in kept.items()},
        "time, median ratio": median(ratios),
        "largest difference of losses": max(
            abs(a["loss"] - b["loss"]) for a, b in zip(*answers.values(), strict=True)
        ),
    }
    place.result(**result)
    for worker in sides.values():
        worker.close()


if __name__ == "__main__":
    main()
