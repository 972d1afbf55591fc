"""Whisper base learns to hear at the length of the audio: clean speech of many voices, tested on others."""

from place import Place


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("base") or place.weights("tiny.en")
    out = place.out / "run"
    seconds = place.train("asr/whisper_fit", weights, "strangers_valid", 0.4, 480)
    result = {"weights": weights.name, "seconds": round(seconds, 1), "steps": place.steps()}
    for name, clips in (("strangers", "strangers"), ("prompts", "prompts_test")):
        result[name] = place.rates(out / "fit", weights, place.clips(clips), place.out / name)
        place.result(**result)


if __name__ == "__main__":
    main()
