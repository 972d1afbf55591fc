"""A res_adapter of Whisper base: it learns to hear at the length of the audio, for `diffusion_base`."""

from place import Place


def main() -> None:
    place = Place.from_arguments()
    train = place.joined("train", "voices", "prompts_train", "sky")
    seconds = place.train(
        "asr/whisper_res_adapter",
        place.weights("base"),
        "strangers_valid",
        place.left(0.72),
        240,
        data__train=train,
        data__max_valid=2 if place.tiny else 16,
        data__workers=0 if place.tiny else 8,
        task__language="en",
        trainer__max_steps=300,
        trainer__valid_every_steps=100,
    )
    place.trained(seconds)


if __name__ == "__main__":
    main()
