"""Through a door against straight to a child of the same launch, turn and turn about in one run.

The server runs in a process of its own, so that its CPU and memory can be told; its child and the one that we start by
hand get the same arguments. Starts are measured with the server's own parts inside this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from llamarunner import __version__, app
from llamarunner.bench.load import Scenario, Seen, Target, first_token, play, quantile, session
from llamarunner.catalog import Catalog, ModelEntry
from llamarunner.config import NO_LIMITS, Settings
from llamarunner.errors import LlamaRunnerError
from llamarunner.fleet.child import Child
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.launcher import Launcher
from llamarunner.server.client import Client

ROUNDS = 5
STARTS = 7
IDLE_SECONDS = 1.0
SCENARIOS = (
    Scenario("1 chat at a time", concurrency=1, requests=200, max_tokens=8, stream=False),
    Scenario("16 chats at a time", concurrency=16, requests=320, max_tokens=8, stream=False),
    Scenario("1 stream", concurrency=1, requests=20, max_tokens=128, stream=True),
    Scenario("32 streams", concurrency=32, requests=160, max_tokens=128, stream=True),
)


@dataclass(slots=True)
class Comparison:
    """One scenario, both ways."""

    scenario: Scenario
    straight: Seen = field(default_factory=Seen)
    door: Seen = field(default_factory=Seen)
    cpu_seconds: float = 0.0  # of the server's process

    def report(self) -> dict[str, Any]:
        straight, door = self.straight.row(), self.door.row()
        added = {f"added_{key}": door[key] - straight[key] for key in straight if key.endswith("_ms")}
        ratios = {f"ratio_{key}": door[key] / straight[key] for key in straight if key.endswith("_per_second")}
        cpu = self.cpu_seconds * 1000 / len(self.door.whole)
        return {
            "scenario": self.scenario.name,
            "straight": straight,
            "door": door,
            **added,
            **ratios,
            "server_cpu_ms_per_request": cpu,
        }


@dataclass(frozen=True, slots=True)
class Arms:
    """The two ways to the model."""

    http: aiohttp.ClientSession
    straight: Target
    door: Target
    server: psutil.Process


async def measure(owner: Settings, model: str | None, rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run the whole comparison; return the report. Takes some minutes on two cores. Raises LlamaRunnerError."""
    settings = bench_settings(owner)
    entry = pick(settings, model)
    async with _arms(settings, entry) as arms:
        await asyncio.sleep(IDLE_SECONDS)
        idle = arms.server.memory_info().rss
        for target in (arms.straight, arms.door):
            await play(arms.http, target, SCENARIOS[0], 20, Seen())
        comparisons = [await _compare(arms, scenario, rounds, progress) for scenario in SCENARIOS]
        busy = arms.server.memory_info().rss
    progress("starts")
    starts = await _starts(settings, entry)
    return {
        "version": __version__,
        "machine": {"platform": platform.platform(), "python": platform.python_version(), "cores": psutil.cpu_count()},
        "model": entry.id,
        "scenarios": [comparison.report() for comparison in comparisons],
        "server_memory_mb": {"idle": idle / 1e6, "after": busy / 1e6},
        "start_to_first_token_ms": starts,
    }


def bench_settings(settings: Settings) -> Settings:
    """The owner's settings, with doors on free ports, no limits on who may call, and room for 32 streams."""
    shape = {"host": "127.0.0.1", "port": 0, "rate_limits": NO_LIMITS.model_dump()}
    ours = {
        "proxies": {"ollama": {"enabled": False}, "lmstudio": shape},
        "catalog": settings.catalog.model_dump(mode="json"),
        "runtime": settings.runtime.model_dump(mode="json"),
        "defaults": {**settings.defaults.model_dump(mode="json", exclude_none=True), "parallel": 32, "ctx_size": 16384},
    }
    return Settings.model_validate(ours)


def pick(settings: Settings, model: str | None) -> ModelEntry:
    """The model to measure with: the one named, else a demo model. Raises LlamaRunnerError if there is none."""
    catalog = Catalog(settings)
    catalog.scan()
    return catalog.find(model or "demo-chat")


async def _compare(arms: Arms, scenario: Scenario, rounds: int, progress: Callable[[str], None]) -> Comparison:
    comparison = Comparison(scenario)
    share = max(scenario.concurrency, scenario.requests // rounds)
    for turn in range(rounds):
        progress(f"{scenario.name}, round {turn + 1} of {rounds}")
        await play(arms.http, arms.straight, scenario, share, comparison.straight)
        before = sum(arms.server.cpu_times()[:2])
        await play(arms.http, arms.door, scenario, share, comparison.door)
        comparison.cpu_seconds += sum(arms.server.cpu_times()[:2]) - before
    return comparison


@asynccontextmanager
async def _arms(settings: Settings, entry: ModelEntry) -> AsyncIterator[Arms]:
    launch = Launcher(settings)(entry, Task.GENERATE, settings.for_model(entry.id))
    async with (
        session() as http,
        _child(launch, entry.id) as straight,
        running_server(settings, entry) as (door, server),
    ):
        yield Arms(http, straight, door, server)


@asynccontextmanager
async def _child(launch: Launch, model: str) -> AsyncIterator[Target]:
    """A child started by hand, as the server would start it."""
    async with Client() as client, await Child.spawn(launch, grace=5) as child:
        endpoint = await child.ready(app.prober(client), stall=300, limit=600)
        yield Target(endpoint.url, {"Authorization": f"Bearer {endpoint.api_key}"}, model)


@asynccontextmanager
async def running_server(settings: Settings, entry: ModelEntry) -> AsyncIterator[tuple[Target, psutil.Process]]:
    """A server in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(settings.model_dump(mode="json", exclude_defaults=True)))
        command = (sys.executable, "-m", "llamarunner", "serve", "--config", str(file))
        server = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            url = await _door_url(server)
            yield Target(url, {}, entry.id), psutil.Process(server.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.terminate()
            await server.communicate()


async def _door_url(server: asyncio.subprocess.Process) -> str:
    """Read the greeting until it names the door."""
    assert server.stdout
    async for line in server.stdout:
        if match := re.search(rb"LM Studio +(http://\S+)", line):
            return match[1].decode()
    raise LlamaRunnerError("The server did not start; try `llamarunner serve` to see why.")


async def _starts(settings: Settings, entry: ModelEntry) -> dict[str, float]:
    """Median time from nothing to the first token: a child by hand, and the same through a door, in milliseconds."""
    by_hand, through_door = [], []
    launch = Launcher(settings)(entry, Task.GENERATE, settings.for_model(entry.id))
    async with app.running(settings) as house, session() as http:
        door = Target(house.urls["lmstudio"], {}, entry.id)
        for _ in range(STARTS):
            began = time.perf_counter()
            async with _child(launch, entry.id) as straight:
                await first_token(http, straight)
                by_hand.append(time.perf_counter() - began)
            began = time.perf_counter()
            await first_token(http, door)
            through_door.append(time.perf_counter() - began)
            await house.services.supervisor.stop(entry)
    straight_ms, door_ms = quantile(by_hand, 50), quantile(through_door, 50)
    return {"straight": straight_ms, "door": door_ms, "added": door_ms - straight_ms}
