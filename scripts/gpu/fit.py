"""Whisper base learns to hear at the length of the audio: clean speech of many voices, tested on others."""

import json

from place import Place


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("base") or place.weights("tiny.en")
    data = place.joined("train", "voices", "prompts_train")
    valid = place.clips("strangers_valid")
    out = place.out / "run"
    seconds = place.train(
        "asr/whisper_fit",
        out,
        backbone__weights=weights,
        data__train=data,
        data__valid=valid,
        data__max_valid=4 if place.tiny else 64,
        data__seconds_per_batch=8 if place.tiny else 480,
        data__workers=0 if place.tiny else 3,
        **({"trainer__max_steps": 2} if place.tiny else {"trainer__max_minutes": 0.4 * place.seconds / 60}),
    )
    result = {"weights": weights.name, "seconds": round(seconds, 1), "steps": steps(out)}
    for name, clips in (("strangers", "strangers"), ("prompts", "prompts_test")):
        result[name] = place.rates(out / "fit", weights, place.clips(clips), place.out / name)
        (place.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def steps(out) -> int:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return max(json.loads(line).get("step", 0) for line in lines)


if __name__ == "__main__":
    main()
