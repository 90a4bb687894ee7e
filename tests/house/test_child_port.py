"""S-17: a model's process listens on a port of its own, where other users of the machine, and pages, get nothing."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.house.conftest import OpenHouse

SAID = "an unmistakable prompt"
CHAT: dict[str, Any] = {"model": "demo-chat", "max_tokens": 3, "messages": [{"role": "user", "content": SAID}]}
ASKED = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/completion"),
    ("POST", "/tokenize"),
    ("POST", "/slots/0?action=save"),
    ("GET", "/props"),
    ("GET", "/slots"),
    ("GET", "/metrics"),
    ("GET", "/lora-adapters"),
]


@pytest.mark.parametrize("key", [None, "wrong", "any", ""])
async def test_s17_a_models_process_answers_nobody_but_us(open_house: OpenHouse, key: str | None) -> None:
    async with open_house() as house, aiohttp.ClientSession() as http:
        async with http.post(house.url + "/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
        async with http.get(house.url + "/v1/models/demo-chat/status") as response:
            port = (await response.json())["port"]
        given = {} if key is None else {"Authorization": f"Bearer {key}"}
        for method, path in ASKED:
            for origin in ({}, {"Origin": "https://evil.example"}):
                asked = http.request(
                    method,
                    f"http://127.0.0.1:{port}{path}",
                    json=CHAT if method == "POST" else None,
                    headers={**given, **origin},
                )
                async with asked as response:
                    assert response.status == 401, path
                    assert SAID not in await response.text()
