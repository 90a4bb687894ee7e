"""What a created model brings along holds in every language, through both doors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from tests.server.test_ollama_api import ask, post, said
from tests.server.test_ollama_asked import contexts

MADE = {
    "model": "brief",
    "from": "chat",
    "system": "Be brief.",
    "parameters": {"num_ctx": 64, "temperature": 0.25, "stop": ["x"]},
    "stream": False,
}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        async with post(house, "/api/create", MADE) as made:
            assert await made.json() == {"status": "success"}
        yield house


async def passed_on(house: House, path: str, **more: Any) -> dict[str, Any]:
    """What the model's process is asked by a request through LM Studio's door."""
    async with house.post(path, {"model": "brief", **more}) as response:
        assert response.status == 200, await response.text()
    body: dict[str, Any] = house.journal("body")[-1]["body"]
    return body


async def test_its_system_text_options_and_context(house: House) -> None:
    body = await passed_on(house, "/v1/chat/completions", messages=HELLO)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, *HELLO]
    assert (body["model"], body["temperature"], body["stop"]) == ("brief", 0.25, ["x"])
    body = await passed_on(house, "/v1/chat/completions", messages=HELLO, temperature=1)
    assert body["temperature"] == 1
    body = await passed_on(house, "/v1/messages", messages=HELLO, max_tokens=5)
    assert (body["system"], body["stop_sequences"]) == ("Be brief.", ["x"])
    assert "system" not in await passed_on(house, "/tokenize", content="a")
    assert (await ask(house, "/api/chat", said(model="brief", stream=False)))[0] == 200
    assert contexts(house) == ["64"], "no language starts it otherwise"


async def test_what_was_started_by_hand_stays(house: House) -> None:
    async with house.post("/v1/models/brief/start?wait=true", {"ctx_size": 128}) as response:
        assert response.status == 200, await response.text()
    await passed_on(house, "/v1/chat/completions", messages=HELLO)
    assert contexts(house) == ["128"]
