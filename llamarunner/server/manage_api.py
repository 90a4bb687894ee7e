"""The house about itself: its health, its figures, and what it can do. Every door tells about all doors."""

from __future__ import annotations

import asyncio
import platform
import time
from dataclasses import asdict, dataclass, replace
from typing import Literal

from aiohttp import web

from llamarunner.dialects import strict_json
from llamarunner.events import timestamp
from llamarunner.server import models_api
from llamarunner.server.services import VIEW, Services, View

LATE_SECONDS = 5.0
DOORS = ("ollama", "lmstudio")
FEATURES = (
    "chat",
    "completions",
    "embeddings",
    "audio",
    "streaming",
    "responses",
    "messages",
    "rerank",
    "infill",
    "tokenize",
    "tools",
    "vision",
    "model_management",
    "websocket",
    "webhooks",
)


@dataclass(frozen=True, slots=True)
class Health:
    status: Literal["healthy", "draining", "unhealthy"]
    timestamp: str
    version: str
    uptime: int  # seconds


@dataclass(frozen=True, slots=True)
class Models:
    """The models that this door shows, and those behind it that are loaded."""

    total: int
    loaded: int
    memory_usage: int  # bytes


@dataclass(frozen=True, slots=True)
class Proxy:
    status: Literal["running", "disabled"]
    port: int | None


@dataclass(frozen=True, slots=True)
class System:
    """The machine: processors in percent, memory in MiB."""

    cpu_usage: float
    memory_usage: int
    available_memory: int


@dataclass(frozen=True, slots=True)
class SystemStatus:
    status: Literal["running", "draining"]
    models: Models
    proxies: dict[str, Proxy]
    system: System
    version: str
    uptime: int  # seconds


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    python_version: str
    platform: str
    runtime: str | None  # the kind of program that runs models
    runtime_version: str | None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    id: str
    version: str
    description: str
    features: tuple[str, ...]
    models_supported: tuple[str, ...]
    runtime_info: RuntimeInfo


async def health(request: web.Request) -> web.Response:
    """Say whether the server takes requests: 200 healthy, or 503 draining, or unhealthy if its scheduler hangs."""
    services = request.app[VIEW].services
    state: Literal["healthy", "draining", "unhealthy"] = "healthy"
    if services.drain.active:
        state = "draining"
    elif services.supervisor.overdue() > LATE_SECONDS:
        state = "unhealthy"
    answer = Health(state, timestamp(time.time()), services.version, services.uptime)
    return _json(answer, status=200 if state == "healthy" else 503)


async def system_status(request: web.Request) -> web.Response:
    """Say how the house and its machine are."""
    view = request.app[VIEW]
    services = view.services
    machine, models = await asyncio.gather(services.figures.machine(), _models(view))
    return _json(
        SystemStatus(
            status="draining" if services.drain.active else "running",
            models=models,
            proxies={name: _proxy(services, name) for name in dict.fromkeys((*DOORS, *_open_doors(services)))},
            system=System(machine.cpu_percent, machine.used_bytes >> 20, machine.available_bytes >> 20),
            version=services.version,
            uptime=services.uptime,
        )
    )


async def server_info(request: web.Request) -> web.Response:
    """Say what this server is and can do."""
    services = request.app[VIEW].services
    kind, version = services.runtime()
    return _json(
        ServerInfo(
            id="llama-runner-pro",
            version=services.version,
            description="LlamaRunner Pro - AI Proxy Suite",
            features=FEATURES,
            models_supported=("gguf", "ctranslate2"),
            runtime_info=RuntimeInfo(platform.python_version(), platform.platform(), kind, version),
        )
    )


async def ollama_greeting(request: web.Request) -> web.Response:
    """Say what Ollama says; its clients look for this very text."""
    return web.Response(text="Ollama is running")


async def _models(view: View) -> Models:
    loaded = {entry.id: replace(entry, instance=1) for entry in view.loaded}
    entries = {entry.id: entry for entry in view.entries} | loaded
    processes = [pid for entry in entries.values() for pid in models_api.all_pids(view, entry)]
    memory = await view.services.figures.tree_bytes(processes)
    return Models(len(entries), len(loaded), memory)


def _open_doors(services: Services) -> list[str]:
    return [view.name for view in services.views]


def _proxy(services: Services, name: str) -> Proxy:
    port = next((view.port for view in services.views if view.name == name), None)
    return Proxy("disabled" if port is None else "running", port)


def _json(value: Health | SystemStatus | ServerInfo, status: int = 200) -> web.Response:
    return web.Response(body=strict_json.dumps(asdict(value)), content_type="application/json", status=status)
