"""What a created model brings along, through every language that the real runtime speaks."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tests.house.conftest import House, OpenHouse

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
MADE = {
    "model": "cut",
    "from": "demo-chat",
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}],
    "parameters": {
        "stop": ["Paris"],
        "num_ctx": 512,
        "num_predict": 200,
        **{"temperature": 0, "top_k": 5, "seed": 3, "num_keep": 4, "typical_p": 0.9},
        **{"repeat_penalty": 1.1, "repeat_last_n": 5, "presence_penalty": 0.1, "frequency_penalty": 0.1},
    },
    "stream": False,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASKED},
    "/v1/messages": {"messages": ASKED, "max_tokens": 200},
    "/v1/responses": {"input": ASKED[0]["content"]},
    "/api/chat": {"messages": ASKED, "stream": False},
    "/api/generate": {"prompt": ASKED[0]["content"], "stream": False},
}


@pytest.fixture
async def house(open_house: OpenHouse, tmp_path: Any) -> Any:
    async with open_house({"catalog": {"library": str(tmp_path / "library"), "demo_models": "show"}}) as house:
        await ask(house, "/api/create", MADE)
        yield house


async def ask(house: House, path: str, document: dict[str, Any]) -> str:
    url = house.urls["Ollama"] + path
    async with aiohttp.ClientSession() as client, client.post(url, json={"model": "cut", **document}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.text()


async def test_every_language_has_them(house: House) -> None:
    for path, asked in REQUESTS.items():
        said = await ask(house, path, asked)
        assert "The capital of France is " in said, path
        assert "is Paris" not in said, f"{path} does not stop"
    url = house.urls["Ollama"]
    async with aiohttp.ClientSession() as client, client.get(url + "/v1/models/cut/status") as answer:
        assert (await answer.json())["context_length"] == 512
    whole = await ask(house, "/v1/messages/count_tokens", {"messages": ASKED})
    bare = await ask(house, "/v1/messages/count_tokens", {"messages": ASKED, "model": "demo-chat"})
    assert json.loads(whole)["input_tokens"] > json.loads(bare)["input_tokens"] + 10
