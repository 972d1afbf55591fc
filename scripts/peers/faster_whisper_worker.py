"""Runs in faster-whisper's own environment: transcribes a folder each time a line arrives on stdin.

    python faster_whisper_worker.py MODEL_FOLDER COMPUTE_TYPE sequential|batched|given THREADS < requests

| mode | what it is |
| --- | --- |
| sequential | window after window; where there are several, with the time stamps by which they join |
| batched | its own voice detector cuts the recording, and the parts are decoded together |
| given | the same, but a recording of one window is given whole: its detector would only cost time |

A request is one JSON line {"files": [...]}; the answer is one JSON line {"seconds": ...,
"cpu_seconds": ..., "texts": [...]}.
"""

import json
import sys
import time

import soundfile
from faster_whisper import (  # pyright: ignore[reportMissingImports]
    BatchedInferencePipeline,
    WhisperModel,
    decode_audio,
)

WINDOW = 30.0
"""Seconds that Whisper hears at once."""
BATCH = 8


def main() -> None:
    folder, compute_type, mode, threads = sys.argv[1:5]
    model = WhisperModel(folder, device="cpu", compute_type=compute_type, cpu_threads=int(threads))
    batched = BatchedInferencePipeline(model)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        files = json.loads(line)["files"]
        started, used = time.perf_counter(), time.process_time()
        texts = [transcribe(model, batched, mode, file) for file in files]
        spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
        print(json.dumps({**spent, "texts": texts}), flush=True)


def transcribe(model: WhisperModel, batched: BatchedInferencePipeline, mode: str, file: str) -> str:
    """Greedy: the fastest settings that keep the words."""
    seconds = soundfile.info(file).duration
    options = {"language": "en", "beam_size": 1, "without_timestamps": True}
    if mode == "sequential":
        options["without_timestamps"] = seconds <= WINDOW
        segments, _ = model.transcribe(file, condition_on_previous_text=False, **options)
    elif mode == "given" and seconds <= WINDOW:
        audio = decode_audio(file)  # an MP3 declares more than it holds, which the pipeline asserts against
        clip = [{"start": 0.0, "end": len(audio) / 16_000}]
        segments, _ = batched.transcribe(
            audio, clip_timestamps=clip, vad_filter=False, batch_size=BATCH, **options
        )
    else:
        segments, _ = batched.transcribe(file, batch_size=BATCH, **options)
    return " ".join(segment.text.strip() for segment in segments)


main()
