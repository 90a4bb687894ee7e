"""Speech to text through a door against faster-whisper called directly, one by one and in batches, turn and turn about.

All arms run in processes of their own, on one model, with the same options, threads and settings of the allocator, but
for one arm that has none. The file is on disk for the direct arms and is uploaded to the door. Each round begins with
another arm, and what one arm costs over another is the median of the rounds' ratios, so that a machine that slows down
for a while slows both. What an arm's processes take of the processors is told too: that hardly differs on a machine
which is busy with other things. The peak of memory is the kernel's own count, of the process that holds the model.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
from llamarunner.config.settings import Discover
from llamarunner.errors import LlamaRunnerError
from llamarunner.fleet.runtimes import whisper
from llamarunner.fleet.runtimes.llama_server import ONE_THREAD_BYTES

MINUTE = 60
NOWHERE = Discover(ollama=False, lmstudio=False, huggingface=False, llama_cpp=False)
CHECKOUT = Path(__file__).parents[2]  # if this module lies in one
SAMPLE = Path("tests", "fixtures", "speech", "long.wav")  # in a checkout
DIRECT = {  # arm → how it hears, and with which settings of the allocator
    "sequential": ("sequential", whisper.KEEP_MEMORY),
    "batched": ("batched", whisper.KEEP_MEMORY),
    "sequential, default malloc": ("sequential", {}),
}


@dataclass(slots=True)
class Arm:
    """One way to the text; `hear` takes a file, and returns the answer's duration and count of words."""

    name: str
    hear: Callable[[Path], Awaitable[tuple[float, int]]]
    load_seconds: float
    holder: psutil.Process  # of the model
    server: psutil.Process | None = None  # before it
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    words: int = 0

    async def turn(self, file: Path) -> float:
        """Hear a recording, and note the time it took; return the recording's."""
        began, used = time.perf_counter(), self._used()
        duration, self.words = await self.hear(file)
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(self._used() - used)
        return duration

    def forget(self) -> None:
        """Drop the figures of the first turn, which warmed up."""
        self.seconds.clear()
        self.cpu_seconds.clear()

    def _used(self) -> float:
        """Seconds of all processors that its processes have used."""
        return sum(sum(process.cpu_times()[:2]) for process in (self.holder, self.server) if process)

    def report(self, duration: float) -> dict[str, Any]:
        middle = quantile(self.seconds, 50) / 1000
        return {
            "seconds_p50": middle,
            "cpu_seconds_p50": statistics.median(self.cpu_seconds),
            "real_time_factor": middle / duration,
            "peak_memory_mb": peak_bytes(self.holder) / 1e6,
            "load_seconds": self.load_seconds,
            "words": self.words,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def over(self, other: Arm) -> dict[str, float]:
        """How many times as long it took as another one, and as much of the processors: medians of the rounds."""
        return {
            "seconds": paired(self.seconds, other.seconds),
            "cpu_seconds": paired(self.cpu_seconds, other.cpu_seconds),
        }


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


async def measure(
    owner: Settings, model: str | None, file: Path | None, rounds: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Run the comparison; return the report. Raises LlamaRunnerError.

    `model` is the name of a speech model, or its folder; None is the demo model.
    """
    given = file and checked(file)
    owner, entry = pick(owner, model)
    threads = 1 if entry.size < ONE_THREAD_BYTES else min(4, psutil.cpu_count() or 1)
    chosen = {"threads": threads, "slots": 1, "compute_type": "int8", "device": "cpu"}
    base = bench_settings(owner).model_dump(mode="json", exclude_defaults=True)
    settings = Settings.model_validate(base | {"audio": chosen})
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recording = given or one_minute(folder)
        arms = [await stack.enter_async_context(_direct(name, entry, threads)) for name in DIRECT]
        arms.append(await stack.enter_async_context(_door(settings, entry)))
        duration = 0.0
        for turn in range(rounds + 1):  # the first warms up
            first = turn % len(arms)
            for arm in arms[first:] + arms[:first]:
                progress(f"{arm.name}, round {turn} of {rounds}")
                duration = await arm.turn(recording)
                if not turn:
                    arm.forget()
        same = "sequential" if whisper.batch_size(entry, settings.audio.for_model(entry.id)) == 1 else "batched"
        told = {arm.name: arm.report(duration) for arm in arms}
        by_name = {arm.name: arm for arm in arms}
    return {
        "version": __version__,
        "machine": {"platform": platform.platform(), "python": platform.python_version(), "cores": psutil.cpu_count()},
        "model": entry.id,
        "duration_seconds": duration,
        "arms": told,
        "same_as_door": same,
        "door_over_same": by_name["door"].over(by_name[same]),
        "batched_over_sequential": by_name["batched"].over(by_name["sequential"]),
    }


def pick(settings: Settings, model: str | None) -> tuple[Settings, ModelEntry]:
    """The speech model to measure with, and the settings under which a catalog has it. Raises LlamaRunnerError."""
    folder = Path(model).absolute() if model and Path(model).is_dir() else None
    if folder:
        known = settings.catalog.model_copy(update={"folders": (folder,), "discover": NOWHERE})
        settings = settings.model_copy(update={"catalog": known})
    catalog = Catalog(settings)
    found = [entry for entry in catalog.scan() if entry.path.parent == folder]
    if folder and not found:
        raise LlamaRunnerError(f"--model {model}: the folder holds no model.")
    entry = found[0] if found else catalog.find(model or "demo-whisper")
    if Capability.TRANSCRIPTION not in entry.capabilities:
        raise LlamaRunnerError(f"The model '{entry.id}' is no speech model that can be used.")
    return settings, entry


def checked(file: Path) -> Path:
    """The owner's recording. Raises LlamaRunnerError if it is none."""
    import av

    if not file.is_file():
        raise LlamaRunnerError(f"--file {file}: there is no file of this name.")
    try:
        with av.open(str(file)) as container:
            audible = bool(container.streams.audio)
    except (av.FFmpegError, ValueError):
        audible = False
    if not audible:
        raise LlamaRunnerError(f"--file {file}: it is no recording with sound.")
    return file


def one_minute(folder: Path) -> Path:
    """A minute of speech: a sample again and again. Raises LlamaRunnerError where there is no sample."""
    found = next((path for path in (CHECKOUT / SAMPLE, Path.cwd() / SAMPLE) if path.exists()), None)
    if found is None:
        raise LlamaRunnerError("Name a recording with --file, or run this in a checkout of the source, which has one.")
    with wave.open(str(found)) as sample:
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
async def _direct(name: str, entry: ModelEntry, threads: int) -> AsyncIterator[Arm]:
    """faster-whisper in a process of its own."""
    mode, allocator = DIRECT[name]
    command = (sys.executable, "-m", "llamarunner.bench.hear", str(entry.path.parent), mode, str(threads))
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **allocator},
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
        yield Arm(name, hear, (await answer())["load_seconds"], psutil.Process(child.pid))
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
        yield Arm("door", hear, load_seconds, workers[0], server)


async def _load(http: aiohttp.ClientSession, target: Target) -> float:
    """Load the model through the door; seconds until it is ready, the start of its process included."""
    began = time.perf_counter()
    async with http.post(f"{target.url}/v1/models/{target.model}/start", params={"wait": "true"}) as response:
        response.raise_for_status()
    return time.perf_counter() - began
