"""Speech to text through a door against faster-whisper called directly, one by one and in batches, turn and turn about.

All arms run in processes of their own, on one model, with the same options and threads; the file is on disk for the
direct arms and is uploaded to the door. The peak of memory is the kernel's own count, of the process that holds the
model.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from llamarunner import __version__
from llamarunner.bench.load import Target, quantile, session
from llamarunner.bench.proxy import bench_settings, running_server
from llamarunner.catalog import Capability, Catalog, ModelEntry
from llamarunner.config import Settings
from llamarunner.errors import LlamaRunnerError

MINUTE = 60
SAMPLE = Path(__file__).parents[2] / "tests" / "fixtures" / "speech" / "long.wav"  # in a checkout
DIRECT = ("sequential", "batched")


@dataclass(slots=True)
class Arm:
    """One way to the text: call it with a file to hear it once; returns the answer's duration and count of words."""

    name: str
    hear: Callable[[Path], Any]
    load_seconds: float
    holder: psutil.Process  # of the model
    seconds: list[float] = field(default_factory=list)
    words: int = 0

    def report(self, duration: float) -> dict[str, Any]:
        middle = quantile(self.seconds, 50)
        return {
            "seconds_p50": middle,
            "real_time_factor": middle / duration,
            "peak_memory_mb": peak_bytes(self.holder) / 1e6,
            "load_seconds": self.load_seconds,
            "words": self.words,
        }


async def measure(
    owner: Settings, model: str | None, file: Path | None, rounds: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Run the comparison; return the report. Raises LlamaRunnerError."""
    entry = pick(owner, model)
    threads = 1 if entry.size < 32 << 20 else min(4, psutil.cpu_count() or 1)
    chosen = {"threads": threads, "slots": 1, "compute_type": "int8", "device": "cpu"}
    base = bench_settings(owner).model_dump(mode="json", exclude_defaults=True)
    settings = Settings.model_validate(base | {"audio": chosen})
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recording = file or one_minute(folder)
        arms = [await stack.enter_async_context(_direct(mode, entry, threads)) for mode in DIRECT]
        arms.append(await stack.enter_async_context(_door(settings, entry)))
        duration = 0.0
        for turn in range(rounds + 1):  # the first warms up
            for arm in arms:
                progress(f"{arm.name}, round {turn} of {rounds}")
                began = time.perf_counter()
                duration, arm.words = await arm.hear(recording)
                if turn:
                    arm.seconds.append(time.perf_counter() - began)
        told = {arm.name: arm.report(duration) for arm in arms}
    return {
        "version": __version__,
        "machine": {"platform": platform.platform(), "python": platform.python_version(), "cores": psutil.cpu_count()},
        "model": entry.id,
        "duration_seconds": duration,
        "arms": told,
        "door_over_batched": told["door"]["seconds_p50"] / told["batched"]["seconds_p50"],
        "batched_over_sequential": told["batched"]["seconds_p50"] / told["sequential"]["seconds_p50"],
    }


def pick(settings: Settings, model: str | None) -> ModelEntry:
    """The speech model to measure with: the one named, else the demo model. Raises LlamaRunnerError."""
    catalog = Catalog(settings)
    catalog.scan()
    entry = catalog.find(model or "demo-whisper")
    if Capability.TRANSCRIPTION not in entry.capabilities:
        raise LlamaRunnerError(f"The model '{entry.id}' is no speech model that can be used.")
    return entry


def one_minute(folder: Path) -> Path:
    """A minute of speech: a sample again and again. Raises LlamaRunnerError where there is no sample."""
    if not SAMPLE.exists():
        raise LlamaRunnerError("Name a recording with --file; only a checkout of the source has one.")
    with wave.open(str(SAMPLE)) as sample:
        shape, said = sample.getparams(), sample.readframes(sample.getnframes())
    pause = bytes(shape.framerate * shape.sampwidth)
    made = folder / "minute.wav"
    with wave.open(str(made), "wb") as file:
        file.setparams(shape)
        bytes_of_minute = MINUTE * shape.framerate * shape.sampwidth
        file.writeframes(((said + pause) * (bytes_of_minute // len(said) + 1))[:bytes_of_minute])
    return made


def peak_bytes(process: psutil.Process) -> int:
    """The most memory that a process ever had; where the system does not tell, what it has now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return int(process.memory_info().rss)


@asynccontextmanager
async def _direct(mode: str, entry: ModelEntry, threads: int) -> AsyncIterator[Arm]:
    """faster-whisper in a process of its own."""
    command = (sys.executable, "-m", "llamarunner.bench.hear", str(entry.path.parent), mode, str(threads))
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdin
    assert child.stdout
    stdin, stdout = child.stdin, child.stdout

    async def answer() -> dict[str, Any]:
        if line := await stdout.readline():
            return dict(json.loads(line))
        raise LlamaRunnerError("faster-whisper ended before it had heard the recording.")

    async def hear(file: Path) -> tuple[float, int]:
        stdin.write(f"{file}\n".encode())
        told = await answer()
        return told["duration"], told["words"]

    try:
        yield Arm(mode, hear, (await answer())["load_seconds"], psutil.Process(child.pid))
    finally:
        stdin.close()
        await child.wait()


@asynccontextmanager
async def _door(settings: Settings, entry: ModelEntry) -> AsyncIterator[Arm]:
    async with running_server(settings, entry) as (target, server), session() as http:
        load_seconds = await _load(http, target)

        async def hear(file: Path) -> tuple[float, int]:
            form = aiohttp.FormData({"model": entry.id})
            with file.open("rb") as data:
                form.add_field("file", data)
                async with http.post(f"{target.url}/v1/audio/transcriptions", data=form) as response:
                    response.raise_for_status()
                    told = await response.json()
            return told["duration"], len(told["text"].split())

        workers = [child for child in server.children() if "llamarunner.workers.whisper" in child.cmdline()]
        yield Arm("door", hear, load_seconds, workers[0])


async def _load(http: aiohttp.ClientSession, target: Target) -> float:
    """Load the model through the door; seconds until it is ready, the start of its process included."""
    began = time.perf_counter()
    async with http.post(f"{target.url}/v1/models/{target.model}/start", params={"wait": "true"}) as response:
        response.raise_for_status()
    return time.perf_counter() - began
