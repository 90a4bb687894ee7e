"""The example of the wrapper API's document, run as it stands through a door of its own; only the address differs. Its
requests are answered too, by the real runtime.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llamarunner.config import NO_LIMITS
from tests.conftest import UNLIMITED_DOORS
from tests.house.conftest import House, OpenHouse
from tests.house.test_spec_examples import post, run
from tests.specification import document, text

ADDRESS = "http://localhost:8009"
FOLDER = "lmstudio/"
DOORS = {**UNLIMITED_DOORS, "wrapper": {"enabled": True, "port": 0, "rate_limits": NO_LIMITS.model_dump()}}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
async def house(open_house: OpenHouse, tmp_path: Path) -> AsyncIterator[House]:
    settings = {
        "proxies": DOORS,
        "catalog": {"aliases": {"llama-3.2-1b-instruct": "demo-chat"}},
        "wrapper": {"image_folders": [str(tmp_path / "pictures")]},
    }
    async with open_house(settings) as house:
        yield house


def asked(name: str) -> Any:
    """A request of the document, without its comments."""
    return document(f"{FOLDER}requests/wrapper-{name}.json")


async def test_the_example(house: House, tmp_path: Path) -> None:
    example = text(FOLDER + "wrapper.py")
    assert example.count(ADDRESS) == 1
    file = tmp_path / "wrapper.py"
    file.write_text(example.replace(ADDRESS, house.urls["Wrapper"]))
    assert (await run(sys.executable, str(file), folder=tmp_path)).strip()


@pytest.mark.parametrize("door", ["LM Studio", "Wrapper"])
async def test_the_requests(house: House, door: str, tmp_path: Path) -> None:
    root = house.urls[door] + "/api/lmstudio"
    loaded = json.loads(await post(f"{root}/models/load", asked("load")))
    assert (loaded["model_key"], loaded["ttl"]) == ("demo-chat", 3600)
    completion = json.loads(await post(f"{root}/completions", asked("completion")))
    assert completion["text"] == completion["choices"][0]["text"]
    assert completion["usage"]["completion_tokens"] > 0
    chat = json.loads(await post(f"{root}/chat/completions", asked("chat")))
    assert chat["choices"][0]["message"]["role"] == "assistant"
    tools = json.loads(await post(f"{root}/tools", {**asked("tools"), "temperature": 0, "max_tokens": 64}))
    assert tools["text"] or tools["tool_calls"]
    picture = tmp_path / "pictures" / "image.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(PIXEL)
    seen = json.loads(await post(f"{root}/vision", {**asked("vision"), "image_path": str(picture), "max_tokens": 8}))
    assert (seen["model"], seen["text"]) == ("demo-vision", seen["choices"][0]["message"]["content"])
    await assert_loaded_and_unloaded(root)


async def assert_loaded_and_unloaded(root: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{root}/health") as response:
            assert (response.status, (await response.json())["status"]) == (200, "healthy")
        async with http.get(f"{root}/models/loaded?model_type=llm") as response:
            assert "demo-chat" in [one["model_key"] for one in (await response.json())["models"]]
        async with http.delete(f"{root}/models/unload/llama-3.2-1b-instruct") as response:
            assert (await response.json())["identifier"] == "demo-chat"


async def test_its_door_is_told_and_has_no_other_paths(house: House) -> None:
    url = house.urls["Wrapper"]
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/v1/system/status") as response:
            assert (await response.json())["proxies"]["wrapper"] == {
                "status": "running",
                "port": int(url.split(":")[-1]),
            }
        for method, path, status in (
            ("GET", "/api/lmstudio/nothing", 404),
            ("PUT", "/api/lmstudio/models/load", 405),
            ("GET", "/api/v1/models", 404),
        ):
            async with http.request(method, url + path) as response:
                assert response.status == status
                assert (await response.json())["error"]["message"]
