"""Our side of the transcription comparison, over the same protocol as faster_whisper_worker.py."""

import json
import sys
import time

import torch

from speech_peft.transcribe.transcriber import Transcriber


def main() -> None:
    adapter, weights, context, threads, engine = sys.argv[1:6]
    torch.set_num_threads(int(threads))
    transcriber = Transcriber(
        weights=weights, adapter=adapter or None, context=context or None, engine=engine
    )
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        files = json.loads(line)["files"]
        started, used = time.perf_counter(), time.process_time()
        texts = {str(result.path): result.text for result in transcriber.transcribe(files)}
        spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
        print(json.dumps({**spent, "texts": [texts[file] for file in files]}), flush=True)


main()
