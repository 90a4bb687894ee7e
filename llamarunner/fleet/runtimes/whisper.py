"""Speech models: `llamarunner.workers.whisper`, our program around faster-whisper.

It loads the model and tries it before it says that it listens, so its line means ready. A tiny model gets one thread,
for more would wait for each other longer than they compute, and no batches, which are no faster for it.

The encoder needs hundreds of megabytes for moments, which the C library by default gets from the kernel and gives back
each time, page by page. Told to keep them (`KEEP_MEMORY`), it encodes in a fifth less time, and in batches in a third
less; the worker gives the memory back when it has been idle for a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamarunner.catalog import ModelEntry
from llamarunner.config import SpeechSettings
from llamarunner.fleet.launch import Launch
from llamarunner.fleet.runtimes.llama_server import ONE_THREAD_BYTES
from llamarunner.fleet.runtimes.xllamacpp import ANNOUNCES

PROGRAM = "llamarunner.workers.whisper"
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_ARENA_MAX": "1"}  # glibc's
KEEP_PRIVATE = {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}  # onnxruntime, which finds silence, has some

BATCH_SIZE = 4
LOAD_SHARE = 1.2  # of the weights, at the peak of a load
PROCESS_BYTES = 280 << 20  # of the libraries, and of the features of one slice
WINDOW_BYTES, WINDOW_SHARE = 80 << 20, 0.09  # of the weights; what the encoder takes for each window of a batch
SLOT_BYTES = 100 << 20


def memory_needed(entry: ModelEntry, speech: SpeechSettings) -> int:
    """Estimate the bytes that the worker takes at its peak."""
    window = WINDOW_BYTES + int(entry.size * WINDOW_SHARE)
    batch = batch_size(entry, speech) * window
    return int(entry.size * LOAD_SHARE) + PROCESS_BYTES + batch + (speech.slots or 1) * SLOT_BYTES


def batch_size(entry: ModelEntry, speech: SpeechSettings) -> int:
    """How many windows are decoded together."""
    return speech.batch_size or (1 if entry.size < ONE_THREAD_BYTES else BATCH_SIZE)


def describe(
    entry: ModelEntry, speech: SpeechSettings, api_key: str, command: Sequence[str], env: Mapping[str, str]
) -> Launch:
    """Describe how the worker serves a speech model; `command` starts the worker in the environment `env`."""
    threads = speech.threads or (1 if entry.size < ONE_THREAD_BYTES else 0)
    options = {
        "--model": str(entry.path.parent),
        "--port": "0",
        "--device": speech.device,
        "--compute-type": speech.compute_type,
        "--threads": str(threads),
        "--slots": str(speech.slots or 0),
        "--batch-size": str(batch_size(entry, speech)),
        "--beam-size": str(speech.beam_size),
    }
    return Launch(
        runtime="faster-whisper",
        argv=(*command, *(part for option in options.items() for part in option)),
        announces=ANNOUNCES,
        idle="/idle",
        api_key=api_key,
        env={**env, **KEEP_MEMORY, **KEEP_PRIVATE, "WHISPER_API_KEY": api_key},
    )
