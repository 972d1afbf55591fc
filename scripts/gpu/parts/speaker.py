"""Two people talk: tiny.en learns to write what the one says of whom it hears another recording."""

from place import Place


def main() -> None:
    place = Place.from_arguments()
    fit = place.adapter("fit")
    begun = {"adapters__fit": f"{{from: {fit}}}", "train": "[speaker, fit]"} if fit else {}
    train = place.joined("train", "voices", *place.spoken())  # the rows that name who speaks
    seconds = place.train(
        "asr/whisper_target_speaker",
        place.weights("tiny.en"),
        "strangers_valid",
        place.left(),
        240,
        data__train=train,
        data__max_valid=16 if place.tiny else 64,  # of two people
        data__workers=0 if place.tiny else 4,
        trainer__valid_every_steps=200,
        **begun,
    )
    place.trained(seconds, fit=fit)


if __name__ == "__main__":
    main()
