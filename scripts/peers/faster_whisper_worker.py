"""Runs in faster-whisper's own environment: transcribes a folder each time a line arrives on stdin.

    python faster_whisper_worker.py MODEL_FOLDER COMPUTE_TYPE sequential|batched THREADS < requests

A request is one JSON line {"files": [...]}; the answer is one JSON line {"seconds": ..., "texts": [...]}.
"""

import json
import sys
import time

import soundfile
from faster_whisper import BatchedInferencePipeline, WhisperModel


def main() -> None:
    folder, compute_type, mode, threads = sys.argv[1:5]
    model = WhisperModel(folder, device="cpu", compute_type=compute_type, cpu_threads=int(threads))
    batched = BatchedInferencePipeline(model)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        files = json.loads(line)["files"]
        started = time.perf_counter()
        texts = [transcribe(model, batched if mode == "batched" else None, file) for file in files]
        print(json.dumps({"seconds": time.perf_counter() - started, "texts": texts}), flush=True)


def transcribe(model: WhisperModel, batched: BatchedInferencePipeline | None, file: str) -> str:
    """Greedy, without time stamps: the fastest settings that keep the words."""
    options = {"language": "en", "beam_size": 1, "without_timestamps": True}
    if batched is None:
        segments, _ = model.transcribe(file, condition_on_previous_text=False, **options)
    else:
        # The whole clip is one window: prompts are far below 30 s, and its VAD would only cost time.
        clip = [{"start": 0.0, "end": soundfile.info(file).duration}]
        segments, _ = batched.transcribe(
            file, clip_timestamps=clip, vad_filter=False, batch_size=8, **options
        )
    return " ".join(segment.text.strip() for segment in segments)


main()
