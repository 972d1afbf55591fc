"""Whisper tiny.en as a parallel decoder on all speech there is; an adapter for lengths is merged first."""

from pathlib import Path

from place import Place


def main() -> None:
    place = Place.from_arguments()
    learn(place, "asr/whisper_diffusion", place.weights("tiny.en"), place.adapter("lengths"))


def learn(place: Place, recipe: str, weights: Path, lengths: Path | None) -> None:
    """Merge `lengths` into the weights, which tells the encoder how to hear short audio, and train."""
    merged = place.beginning("merged", weights, lengths)
    train = place.joined("train", *place.speech())
    seconds = place.train(
        recipe,
        merged,
        "strangers_valid",
        place.left(),
        480,
        data__train=train,
        data__workers=0 if place.tiny else 6,
        trainer__valid_every_steps=500,
    )
    place.trained(seconds, lengths=lengths)


if __name__ == "__main__":
    main()
