"""faster-whisper called directly, as a program: the arm to which the door is compared.

`python -m llamarunner.bench.hear FOLDER MODE THREADS` loads the model, says so in a line of JSON, and then hears the
recording of each path it reads from its input. MODE is `sequential` or `batched`. The options are those that the
worker has by default.
"""

from __future__ import annotations

import json
import os
import sys
import time

BATCH_SIZE = 4
OPTIONS = {"beam_size": 5, "vad_filter": True, "condition_on_previous_text": False, "without_timestamps": False}


def main(folder: str, mode: str, threads: str) -> None:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it imports onnxruntime
    import faster_whisper

    began = time.perf_counter()
    model = faster_whisper.WhisperModel(folder, compute_type="int8", cpu_threads=int(threads), local_files_only=True)
    print(json.dumps({"load_seconds": time.perf_counter() - began}), flush=True)
    batched = mode == "batched"
    hearing = faster_whisper.BatchedInferencePipeline(model) if batched else model
    options = OPTIONS | ({"batch_size": BATCH_SIZE} if batched else {})
    for line in sys.stdin:
        began = time.perf_counter()
        segments, about = hearing.transcribe(line.rstrip("\n"), **options)
        words = len("".join(segment.text for segment in segments).split())
        took = time.perf_counter() - began
        print(json.dumps({"seconds": took, "duration": about.duration, "words": words}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
