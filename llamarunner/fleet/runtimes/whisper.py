"""Speech models: `llamarunner.workers.whisper`, our program around faster-whisper.

It loads the model and tries it before it says that it listens, so its line means ready. A tiny model gets one thread:
more would wait for each other longer than they compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamarunner.catalog import ModelEntry
from llamarunner.config import AudioSettings
from llamarunner.fleet.launch import Launch
from llamarunner.fleet.runtimes.llama_server import ONE_THREAD_BYTES
from llamarunner.fleet.runtimes.xllamacpp import ANNOUNCES

PROGRAM = "llamarunner.workers.whisper"


def describe(
    entry: ModelEntry, audio: AudioSettings, api_key: str, command: Sequence[str], env: Mapping[str, str]
) -> Launch:
    """Describe how the worker serves a speech model; `command` starts the worker in the environment `env`."""
    threads = audio.threads or (1 if entry.size < ONE_THREAD_BYTES else 0)
    options = {
        "--model": str(entry.path.parent),
        "--port": "0",
        "--device": audio.device,
        "--compute-type": audio.compute_type,
        "--threads": str(threads),
        "--slots": str(audio.slots or 0),
        "--batch-size": str(audio.batch_size),
        "--beam-size": str(audio.beam_size),
    }
    return Launch(
        runtime="faster-whisper",
        argv=(*command, *(part for option in options.items() for part in option)),
        announces=ANNOUNCES,
        api_key=api_key,
        env={**env, "WHISPER_API_KEY": api_key, "HF_HUB_OFFLINE": "1"},
    )
