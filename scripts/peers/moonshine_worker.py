"""Runs in Moonshine's own environment: hears English recordings each time a line arrives on stdin.

    python moonshine_worker.py < requests

A request is one JSON line {"files": [...]}; the answer is one JSON line {"texts": [...]}. The weights (tiny)
are in the wheel. It shares nothing with Whisper, and so can judge what a guard by Whisper let pass.
"""

import json
import sys

import soundfile
import soxr
from moonshine_voice import ModelArch, get_model_path
from moonshine_voice.transcriber import Transcriber

RATE = 16_000


def main() -> None:
    model = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        texts = [heard(model, file) for file in json.loads(line)["files"]]
        print(json.dumps({"texts": texts}), flush=True)


def heard(model: Transcriber, file: str) -> str:
    samples, rate = soundfile.read(file, dtype="float32")
    samples = samples if rate == RATE else soxr.resample(samples, rate, RATE)
    found = model.transcribe_without_streaming(samples.tolist(), RATE)
    return " ".join(part.text.strip() for part in found.lines)


main()
