"""The noisy recipe on prompts and many voices; tested on voices never heard, noisy and clean."""

from place import Place


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("tiny.en")
    seconds = place.train("asr/whisper_parallel", weights, "strangers_valid", 0.5, 480)
    result = {"seconds": round(seconds, 1)}
    noisy = ("--degrade", "telephone", "--seed", 1)
    for name, clips, more in (
        ("strangers, noisy", "strangers", noisy),
        ("strangers, clean", "strangers", ()),
        ("prompts, noisy", "prompts_test", noisy),
        ("prompts, clean", "prompts_test", ()),
    ):
        folder = place.out / name.replace(", ", "_")
        result[name] = place.rates(
            place.out / "run" / "telephone", weights, place.clips(clips), folder, *more
        )
        place.result(**result)


if __name__ == "__main__":
    main()
