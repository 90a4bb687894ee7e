"""LM Studio's REST API about models, with the real runtime and the demo models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.house.conftest import House, OpenHouse

QUESTION = "What is the capital of France?"


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


async def test_two_instances_of_the_demo_model(house: House, http: aiohttp.ClientSession) -> None:
    url = house.urls["LM Studio"]
    models = (await ask(http, "GET", f"{url}/api/v1/models"))["models"]
    assert [(one["key"], one["type"], one["publisher"]) for one in models] == [
        ("demo-chat", "llm", "llamarunner"),
        ("demo-embed", "embedding", "llamarunner"),
        ("demo-vision", "llm", "llamarunner"),
    ], "and no model that turns speech into text"
    chat = {key: value for key, value in models[0].items() if key != "size_bytes"}
    assert chat == {
        **{"type": "llm", "publisher": "llamarunner", "key": "demo-chat", "display_name": "LlamaRunner demo chat"},
        **{"architecture": "qwen3", "quantization": {"name": "Q8_0", "bits_per_weight": 8}, "params_string": "1.8M"},
        **{"loaded_instances": [], "max_context_length": 2048, "format": "gguf", "description": None},
        "capabilities": {
            **{"vision": False, "trained_for_tool_use": True},
            "reasoning": {"allowed_options": ["off", "on"], "default": "on"},
        },
    }
    for wanted, instance in ((1024, "demo-chat"), (99_999, "demo-chat:2")):
        body = {"model": "demo-chat", "context_length": wanted, "flash_attention": False, "echo_load_config": True}
        loaded = await ask(http, "POST", f"{url}/api/v1/models/load", json=body)
        assert loaded["instance_id"] == instance
        assert loaded["load_config"]["context_length"] == min(wanted, 2048)
        assert loaded["load_config"]["flash_attention"] is False
    message = {"role": "user", "content": QUESTION}
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    for instance in ("demo-chat", "demo-chat:2"):
        body = {"model": instance, "messages": [message], "ttl": 60, **off}
        answer = await ask(http, "POST", f"{url}/v1/chat/completions", json=body)
        assert answer["model"] == instance
        assert "Paris" in answer["choices"][0]["message"]["content"]
    items = (await ask(http, "GET", f"{url}/api/v0/models"))["data"]
    loaded = {one["id"]: one["loaded_context_length"] for one in items if one["state"] == "loaded"}
    assert loaded == {"demo-chat": 1024, "demo-chat:2": 2048}
    body = {"instance_id": "demo-chat"}
    assert await ask(http, "POST", f"{url}/api/v1/models/unload", json=body) == body
    running = (await ask(http, "GET", f"{house.urls['Ollama']}/api/ps"))["models"]
    assert [one["name"] for one in running] == ["demo-chat:2"]
