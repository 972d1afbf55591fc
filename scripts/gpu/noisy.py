"""The noisy recipe on prompts and many voices; tested on voices never heard, noisy and clean."""

import json

from place import Place


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("tiny.en")
    data = place.joined("train", "voices", "prompts_train")
    out = place.out / "run"
    seconds = place.train(
        "asr/whisper_parallel",
        out,
        backbone__weights=weights,
        data__train=data,
        data__valid=place.clips("strangers_valid"),
        data__max_valid=4 if place.tiny else 64,
        data__seconds_per_batch=8 if place.tiny else 480,
        data__workers=0 if place.tiny else 4,
        **({"trainer__max_steps": 2} if place.tiny else {"trainer__max_minutes": 0.5 * place.seconds / 60}),
    )
    result = {"seconds": round(seconds, 1)}
    noisy = ("--degrade", "telephone", "--seed", 1)
    for name, clips, more in (
        ("strangers, noisy", "strangers", noisy),
        ("strangers, clean", "strangers", ()),
        ("prompts, noisy", "prompts_test", noisy),
        ("prompts, clean", "prompts_test", ()),
    ):
        folder = place.out / name.replace(", ", "_")
        result[name] = place.rates(out / "telephone", weights, place.clips(clips), folder, *more)
        (place.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
