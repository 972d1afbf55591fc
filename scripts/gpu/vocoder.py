"""The restoration vocoder until it speaks: clean speech through the encoder and back, judged by its words."""

import json
import shutil

from place import Place


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("tiny.en")
    data = place.joined("train", "voices", "prompts_train")
    out = place.out / "run"
    small = {"task__decoder": "{name: istft, sample_rate: 16000, channels: 32, hidden: 64}"}
    seconds = place.train(
        "restore/whisper_vocoder",
        out,
        backbone__weights=weights,
        data__train=data,
        data__valid=place.clips("prompts_valid"),
        data__max_valid=2 if place.tiny else 16,
        data__seconds_per_batch=8 if place.tiny else 240,
        data__workers=0 if place.tiny else 5,
        **(
            {"trainer__max_steps": 1, **small}
            if place.tiny
            else {"trainer__max_minutes": 0.75 * place.seconds / 60}
        ),
    )
    result = {"seconds": round(seconds, 1)}
    decoder = out / "vocoder"
    for name, clips in (("prompts", "prompts_test"), ("strangers", "strangers")):
        result[name] = judged(place, decoder, clips, name)
        (place.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def judged(place: Place, adapter, clips: str, name: str) -> dict[str, object]:
    """WER of stock Whisper on clean clips and on what the vocoder made of them."""
    from dataclasses import replace

    from speech_peft.audio import manifest

    rows = manifest.read(place.clips(clips))[: 2 if place.tiny else 64]
    listed = place.out / f"{name}.jsonl"
    manifest.write(listed, rows)
    folder = place.out / f"{name}_restored"
    place.run(
        "restore", listed, "-o", folder, "--adapter", adapter, "--device", place.device, "--guard", "off"
    )
    made = {
        path.stem.removesuffix(".restored"): path
        for path in folder.rglob("*")
        if path.suffix in (".wav", ".flac")
    }
    found = [replace(row, audio=made[row.audio.stem], start=0.0) for row in rows if row.audio.stem in made]
    manifest.write(place.out / f"{name}_made.jsonl", found)
    for row in found[:4]:
        shutil.copy(row.audio, place.out / f"{name}_{row.audio.name}")
    weights = place.weights("tiny.en")
    rates = {
        kind: place.rates(None, weights, path, place.out / f"{name}_{kind}")
        for kind, path in (("clean", listed), ("made", place.out / f"{name}_made.jsonl"))
    }
    return {"clips": len(found), **rates}


if __name__ == "__main__":
    main()
