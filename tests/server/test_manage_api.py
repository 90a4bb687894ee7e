"""The house about itself."""

from __future__ import annotations

import asyncio
import platform
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from doors import House, open_house
from yarl import URL

from llamarunner.config import Door
from llamarunner.fleet.unit import Terms
from llamarunner.server import listener
from llamarunner.server.manage_api import FEATURES


async def test_health(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        for url in house.urls.values():
            async with house.client.get(url + "/health") as response:
                assert response.status == 200
                health = await response.json()
            assert health.keys() == {"status", "timestamp", "version", "uptime"}
            assert (health["status"], health["version"]) == ("healthy", "1.2.3")
            assert type(health["uptime"]) is int
            assert health["timestamp"].endswith("Z")
            age = datetime.now(UTC) - datetime.fromisoformat(health["timestamp"])
            assert timedelta(0) <= age < timedelta(seconds=3)
            async with house.client.head(url + "/health") as response:
                assert response.status == 200
                assert await response.read() == b""


async def test_health_while_draining_is_503(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        house.services.drain.begin()
        async with house.client.get(house.url + "/health") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "draining"
        async with house.client.head(house.url + "/health") as response:
            assert response.status == 503


async def test_only_the_ollama_door_says_what_ollama_says(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        async with house.client.get(house.urls["ollama"] + "/") as response:
            assert response.status == 200
            assert response.content_type == "text/plain"
            assert await response.text() == "Ollama is running"
        async with house.client.head(house.urls["ollama"] + "/") as response:
            assert response.status == 200
        async with house.client.get(house.urls["lmstudio"] + "/") as response:
            assert response.status == 404


async def get(house: House, path: str, door: str = "lmstudio") -> Any:
    async with house.client.get(house.urls[door] + path) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        return await response.json()


async def test_health_with_a_schedule_that_hangs_is_503(tmp_path: Path) -> None:
    """Its timer is taken away while a model is due to be unloaded."""
    async with open_house(tmp_path, models={}) as house:
        schedule = house.services.supervisor._schedule
        long_ago = time.monotonic() - 100
        schedule.ask(1, "hung", Terms(ttl=50), long_ago)
        schedule.started("hung", long_ago)
        schedule.leave(1, long_ago)
        async with house.client.get(house.url + "/health") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "unhealthy"
        schedule.units.clear()
        assert (await get(house, "/health"))["status"] == "healthy"


async def test_system_status_has_the_specs_fields_with_real_figures(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {}, "other": {}}) as house:
        async with house.chat() as response:
            await response.read()
        ports = {name: {"status": "running", "port": URL(url).port} for name, url in house.urls.items()}
        for door in house.urls:
            status = await get(house, "/v1/system/status", door)
            assert {"status", "models", "proxies", "system"} <= status.keys()
            assert status["status"] == "running"
            assert status["proxies"] == ports
            models = status["models"]
            assert (models["total"], models["loaded"]) == (2, 1)
            assert type(models["memory_usage"]) is int
            (start,) = house.journal("start")
            assert abs(models["memory_usage"] / psutil.Process(start["pid"]).memory_info().rss - 1) < 0.2
        await house.services.supervisor.stop(house.services.catalog.find("chat"))
        models = (await get(house, "/v1/system/status"))["models"]
        assert models == {"total": 2, "loaded": 0, "memory_usage": 0}


async def test_system_status_tells_the_machines_memory_and_its_load(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        busy = asyncio.gather(asyncio.to_thread(_count_for, 1.0))
        system = (await get(house, "/v1/system/status"))["system"]
        await busy
        assert {name: type(value) for name, value in system.items()} == {
            "cpu_usage": float,
            "memory_usage": int,
            "available_memory": int,
        }
        assert 0 < system["cpu_usage"] <= 100
        memory = psutil.virtual_memory()
        assert 0 < system["memory_usage"] <= memory.total >> 20
        assert 0 < system["available_memory"] <= memory.total >> 20


def _count_for(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def test_asking_for_figures_all_the_time_costs_little_and_holds_nobody_up(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        began = time.monotonic()
        await asyncio.gather(*(get(house, "/v1/system/status") for _ in range(200)))
        assert time.monotonic() - began < 5, "each one would take a tenth of a second"


async def test_a_door_that_is_closed_is_told_as_disabled(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        house.services.views[:] = [view for view in house.services.views if view.name == "lmstudio"]
        proxies = (await get(house, "/v1/system/status"))["proxies"]
        assert proxies["ollama"] == {"status": "disabled", "port": None}
        assert proxies["lmstudio"]["status"] == "running"


async def test_server_info_has_the_specs_fields(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        for door in house.urls:
            info = await get(house, "/v1/server/info", door)
            assert (info["id"], info["version"]) == ("llama-runner-pro", "1.2.3")
            assert info["description"] == "LlamaRunner Pro - AI Proxy Suite"
            assert info["models_supported"] == ["gguf", "ctranslate2"]
            assert {"chat", "completions", "embeddings", "streaming"} <= set(info["features"])
            runtime = info["runtime_info"]
            assert (runtime["python_version"], runtime["platform"]) == (platform.python_version(), platform.platform())


def test_a_feature_is_told_when_there_is_a_path_for_it() -> None:
    paths = {
        "chat": "/v1/chat/completions",
        "completions": "/v1/completions",
        "embeddings": "/v1/embeddings",
        "responses": "/v1/responses",
        "messages": "/v1/messages",
        "rerank": "/v1/rerank",
        "infill": "/infill",
        "tokenize": "/tokenize",
        "webhooks": "/v1/webhooks/register",
        "audio": "/v1/audio/transcriptions",
    }
    served = {path for _, path in listener._routes("lmstudio")}
    for feature, path in paths.items():
        assert (feature in FEATURES) == (path in served), feature


async def test_the_houses_figures_need_a_key_and_health_needs_none(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=Door.model_validate({"api_keys": ["secret"]})) as house:
        for path, wanted in (("/health", 200), ("/v1/system/status", 401), ("/v1/server/info", 401)):
            async with house.client.get(house.url + path) as response:
                assert response.status == wanted
