"""Whisper tiny.en as a parallel decoder, on all speech there is, behind an encoder of any length if one is packed."""

from pathlib import Path

from place import Place


def main() -> None:
    place = Place.from_arguments()
    learn(place, "asr/whisper_diffusion", place.weights("tiny.en"), place.adapter("lengths"))


def learn(place: Place, recipe: str, weights: Path, lengths: Path | None) -> None:
    """Merge `lengths` into the weights, which tells the encoder how to hear short audio, and train."""
    merged = place.beginning("merged", weights, lengths)
    seconds = place.train(
        recipe,
        merged,
        "strangers_valid",
        0.85,
        480,
        data__train=place.joined("train", *place.speech()),
        optim__lr="4e-4",
        optim__warmup=200,
        trainer__valid_every_steps=500,
    )
    place.trained(seconds, lengths=lengths)


if __name__ == "__main__":
    main()
