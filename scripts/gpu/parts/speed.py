"""Audio seconds a second of Whisper base: stock at 30 s, and adapted to the length; clips and an hour."""

import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from place import Place

from speech_peft.audio import io, manifest
from speech_peft.transcribe.transcriber import Transcriber

RATE = 16_000


def main() -> None:
    place = Place.from_arguments()
    weights = place.weights("base") or place.weights("tiny.en")
    rows = manifest.read(place.clips("strangers"))[: 4 if place.tiny else 256]
    files = [row.audio for row in rows]
    seconds = sum(row.duration for row in rows)
    hour = long(place.out / "hour.wav", files, 60 if place.tiny else 3600)
    fit = place.out.parent / "fit" / "run" / "fit"
    sides = {"stock, 30 s": (None, "full"), "adapted, at its length": (fit, "fit")}
    dtype = "float32" if place.device == "cpu" else "bfloat16"
    result = {
        "weights": weights.name,
        "dtype": dtype,
        "clips": len(files),
        "mean seconds of a clip": seconds / len(files),
    }
    for name, (adapter, context) in sides.items():
        if adapter is not None and not (adapter / "adapter.json").exists():
            continue
        for batch in (1, 64) if place.tiny else (1, 4, 16, 64):
            longest = max(row.duration for row in rows) if context == "fit" else 30.0
            clips = files[: max(8, 4 * batch)]
            taken = sum(row.duration for row in rows[: len(clips)])
            result[f"{name}, clips, batch {batch}"] = taken / timed(
                weights, adapter, context, dtype, place.device, batch * longest, clips
            )
            place.result(**result)
        result[f"{name}, an hour"] = soundfile.info(hour).duration / timed(
            weights, adapter, context, dtype, place.device, 1800.0, [hour]
        )
        place.result(**result)


def timed(weights, adapter, context, dtype, device, batch_seconds, files) -> float:
    """Seconds of a second pass: the first warms up the model and the files."""
    transcriber = Transcriber(
        weights, adapter, context=context, device=device, batch_seconds=batch_seconds, dtype=dtype
    )
    spent = 0.0
    for _ in range(2 if len(files) > 1 else 1):
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        failed = [result.error for result in transcriber.transcribe(files) if result.error]
        spent = time.perf_counter() - began
        if failed:
            raise SystemExit(f"{len(failed)} of {len(files)} failed: {failed[0]}")
    return spent


def long(path: Path, files: list[Path], seconds: float) -> Path:
    """A recording of this length: the clips one after another with pauses of half a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pause, left, at = np.zeros(RATE // 2, np.float32), seconds * RATE, 0
    with soundfile.SoundFile(path, "w", RATE, 1) as out:
        while left > 0:
            samples = np.concatenate([io.load(files[at % len(files)], RATE).samples, pause])
            out.write(samples)
            left, at = left - len(samples), at + 1
    return path


if __name__ == "__main__":
    main()
