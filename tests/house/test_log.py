"""The log of the whole program: its two forms, what strangers write into it, and a change of its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import eventually
from tests.house.conftest import House, OpenHouse, with_fakes

FORGED = "2026-11-21 15:31:53,847 INFO    llamarunner: forged"
DEBUG = {"level": "debug"}  # at which the log quotes what a dead child said
CHAT: dict[str, Any] = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}


def whole_lines(house: House) -> list[str]:
    return house.log().rpartition("\n")[0].split("\n")


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_child_cannot_write_a_line_of_its_own(
    open_house: OpenHouse, tmp_path: Path, fake_llama: Path, form: str
) -> None:
    switches = ["--fake-print", f"\x1b[2J\n{FORGED}\n\x9b31m", "--fake-exit", "3"]
    async with (
        open_house(with_fakes(tmp_path, fake_llama, {"a": switches}, logging=DEBUG), "--log-format", form) as house,
        aiohttp.ClientSession() as http,
        http.post(house.url + "/v1/chat/completions", json=CHAT) as response,
    ):
        assert response.status == 503
        await eventually(lambda: "forged" in house.log() and " 503 " in house.log())
        lines = whole_lines(house)
    assert [line for line in lines if not line.isprintable() or line.startswith(FORGED)] == []
    if form == "json":
        documents = [json.loads(line) for line in lines]
        assert any(FORGED in document["message"] for document in documents)
        assert next(line for line in documents if line["logger"] == "llamarunner.access")["model"] == "a"


async def test_auto_is_json_where_no_person_looks(open_house: OpenHouse) -> None:
    async with open_house({"logging": {"format": "auto"}}) as house, aiohttp.ClientSession() as http:
        async with http.get(house.url + "/v1/models?api_key=secret", headers={"X-Request-ID": "id-1"}) as response:
            assert response.status == 200
        await eventually(lambda: "/v1/models" in house.log())
        lines = [json.loads(line) for line in whole_lines(house)]
    (line,) = [line for line in lines if line["logger"] == "llamarunner.access"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["request_id"], line["method"], line["path"]) == ("info", "id-1", "GET", "/v1/models")
    assert (line["status"], line["client"], line["door"]) == (200, "127.0.0.1", "lmstudio")
    assert "secret" not in house.log()


async def test_a_change_of_its_settings_is_in_force_at_once(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house({"logging": {"format": "text"}}) as house, aiohttp.ClientSession() as http:
        file = tmp_path / "settings.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "logging": {"format": "json", "level": "info", "prompts": True}}))
        await eventually(lambda: '"message": "the changed settings are in force"' in house.log())
        document = {**CHAT, "model": "demo-chat", "max_tokens": 1}
        async with http.post(house.url + "/v1/chat/completions", json=document) as response:
            assert response.status == 200
        await eventually(lambda: '"logger": "llamarunner.access"' in house.log())
        prompts = [line for line in whole_lines(house) if "llamarunner.prompts" in line]
        assert [json.loads(line)["model"] for line in prompts] == ["demo-chat"]
        assert "hello" in prompts[0]
