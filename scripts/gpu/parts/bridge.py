"""Another language in, English out: a bridge behind the encoder of Whisper base, on Czech and Dutch."""

from place import Place


def main() -> None:
    place = Place.from_arguments()
    seconds = place.train(
        "asr/bridge",
        place.weights("base"),
        "abroad_valid",
        place.left(),
        240,
        data__train=place.clips("abroad_train"),
        trainer__max_steps=1000,
        trainer__valid_every_steps=100,
    )
    place.trained(seconds)


if __name__ == "__main__":
    main()
