"""The restoration vocoder until it speaks: clean speech through the encoder and back, judged by its words."""

import shutil

from place import Place


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("tiny.en")
    small = {"task__decoder": "{name: istft, sample_rate: 16000, channels: 32, hidden: 64}"}
    settings = small if place.tiny else {}
    seconds = place.train("restore/whisper_vocoder", weights, "prompts_valid", 0.75, 240, **settings)
    result = {"seconds": round(seconds, 1)}
    decoder = place.out / "run" / "vocoder"
    for name, clips in (("prompts", "prompts_test"), ("strangers", "strangers")):
        result[name] = judged(place, decoder, clips, name)
        place.result(**result)


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
