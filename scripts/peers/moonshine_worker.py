"""Runs in Moonshine's own environment: hears English recordings each time a line arrives on stdin.

    python moonshine_worker.py [THREADS] < requests

A request is one JSON line {"files": [...]}; the answer is one JSON line {"seconds": ..., "cpu_seconds": ...,
"texts": [...]}. It runs on the first THREADS cores. The weights (tiny)
are in the wheel. It shares nothing with Whisper, and so can judge what a guard by Whisper let pass.
"""

import json
import os
import sys
import time

import soundfile
import soxr
from moonshine_voice import ModelArch, get_model_path  # pyright: ignore[reportMissingImports]
from moonshine_voice.transcriber import Transcriber  # pyright: ignore[reportMissingImports]

RATE = 16_000


def main() -> None:
    if len(sys.argv) > 1 and hasattr(os, "sched_setaffinity"):  # it has no setting of its own
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
    model = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        started, used = time.perf_counter(), time.process_time()
        texts = [heard(model, file) for file in json.loads(line)["files"]]
        spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
        print(json.dumps({**spent, "texts": texts}), flush=True)


def heard(model: Transcriber, file: str) -> str:
    samples, rate = soundfile.read(file, dtype="float32")
    samples = samples if rate == RATE else soxr.resample(samples, rate, RATE)
    found = model.transcribe_without_streaming(samples.tolist(), RATE)
    return " ".join(part.text.strip() for part in found.lines)


main()
