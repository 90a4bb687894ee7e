"""Models and the system by REST, with the real runtime and the demo model, through both doors."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest
from yarl import URL

from llamarunner import __version__
from llamarunner.catalog import Catalog
from llamarunner.config import Settings
from tests.conftest import alive
from tests.house.conftest import DEMO_MODELS, House, OpenHouse

QUESTION = {"model": "demo-chat", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
DOORS = ("Ollama", "LM Studio")


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as house:
        yield house


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


async def ask(http: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Any:
    async with http.request(method, url, **options) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def runtime(house: House) -> list[psutil.Process]:
    """The processes that run models."""
    return [child for child in house.children() if any("llama_server" in part for part in child.cmdline())]


async def test_life_of_a_model_by_rest(house: House, http: aiohttp.ClientSession) -> None:
    ollama, lmstudio = (house.urls[door] for door in DOORS)
    model = "/v1/models/demo-chat"
    assert (await ask(http, "GET", f"{ollama}{model}/status"))["status"] == "unloaded"
    await ask(http, "POST", f"{ollama}/v1/chat/completions", json=QUESTION)
    for url in (ollama, lmstudio):
        status = await ask(http, "GET", f"{url}{model}/status")
        assert (status["status"], status["slots"]) == ("loaded", {"busy": 0, "total": 4})
        assert status["context_length"] == 2048
        assert status["last_used"].endswith("Z")
        (child,) = runtime(house)
        assert abs(status["memory_usage"] / child.memory_info().rss - 1) < 0.2
        _, writer = await asyncio.open_connection("127.0.0.1", status["port"])
        writer.close()
    assert await ask(http, "POST", f"{lmstudio}{model}/stop") == {
        "success": True,
        "status": "stopped",
        "id": "demo-chat",
    }
    assert not alive(child.pid)
    assert runtime(house) == []
    stopped = await ask(http, "GET", f"{ollama}{model}/status")
    assert (stopped["status"], stopped["port"], stopped["memory_usage"]) == ("unloaded", None, 0)
    with pytest.raises(OSError, match=r"Connect|refused"):
        await asyncio.open_connection("127.0.0.1", status["port"])


async def test_start_waits_if_asked_and_grants_what_was_asked(house: House, http: aiohttp.ClientSession) -> None:
    url = f"{house.urls['Ollama']}/v1/models/demo-chat"
    started = await ask(http, "POST", f"{url}/start?wait=true", json={"ctx_size": 1024, "parallel": 2})
    assert (started["success"], started["status"]) == (True, "loaded")
    status = await ask(http, "GET", f"{url}/status")
    assert (status["port"], status["last_used"]) == (started["port"], None)
    assert (status["context_length"], status["slots"]["total"]) == (1024, 2)
    info = await ask(http, "GET", f"{url}/info")
    assert (info["loaded"], info["port"]) == (True, started["port"])


@pytest.mark.parametrize("door", DOORS)
async def test_info_of_the_demo_model(house: House, http: aiohttp.ClientSession, door: str) -> None:
    catalog = Catalog(Settings())
    catalog.scan()
    entry = catalog.find("demo-chat")
    info = await ask(http, "GET", f"{house.urls[door]}/v1/models/demo-chat/info")
    assert info["parameters"] == entry.parameters > 1e6
    assert info["size"] == entry.path.stat().st_size
    assert (info["format"], info["path"], info["loaded"]) == ("GGUF", str(entry.path), False)


@pytest.mark.parametrize("door", DOORS)
async def test_the_system_and_the_server_tell_the_truth(house: House, http: aiohttp.ClientSession, door: str) -> None:
    status = await ask(http, "GET", f"{house.urls[door]}/v1/system/status")
    assert (status["status"], status["models"]["total"]) == ("running", len(DEMO_MODELS))
    for name, title in (("ollama", "Ollama"), ("lmstudio", "LM Studio")):
        assert status["proxies"][name] == {"status": "running", "port": URL(house.urls[title]).port}
    info = await ask(http, "GET", f"{house.urls[door]}/v1/server/info")
    assert (info["id"], info["version"]) == ("llama-runner-pro", __version__)
    assert info["runtime_info"]["python_version"] == platform.python_version()
    assert info["runtime_info"]["runtime"] in ("xllamacpp", "llama-server")


async def test_a_door_open_to_the_network_says_so_and_is_not_for_management(
    open_house: OpenHouse, http: aiohttp.ClientSession
) -> None:
    settings = {"proxies": {"ollama": {"port": 0, "host": "0.0.0.0"}, "lmstudio": {"port": 0}}}
    async with open_house(settings) as house:
        port = URL(house.urls["Ollama"]).port
        for verb in ("start", "stop"):
            async with http.post(f"http://127.0.0.1:{port}/v1/models/demo-chat/{verb}") as response:
                assert response.status == 403
            await ask(http, "POST", f"{house.urls['LM Studio']}/v1/models/demo-chat/{verb}")
        await ask(http, "POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=QUESTION)
        assert "the ollama door is open to the network" in house.log()
        assert "nothing can be managed through the ollama door" in house.log()
        assert "lmstudio door" not in house.log()
