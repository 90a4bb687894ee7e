"""Our own answers beside the documented ones of the LlamaRunner Pro API: every field is there, with its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house
from write_gguf import write_model

from llamarunner.config import NO_LIMITS, Door
from tests.specification import differences, document

DOORS = pytest.mark.parametrize("name", ["ollama", "lmstudio"])
ANSWERS = {
    "models": ("GET", "/v1/models"),
    "status": ("GET", "/v1/models/chat/status"),
    "info": ("GET", "/v1/models/chat/info"),
    "start": ("POST", "/v1/models/chat/start?wait=true"),
    "health": ("GET", "/health"),
    "system": ("GET", "/v1/system/status"),
    "server": ("GET", "/v1/server/info"),
    "stop": ("POST", "/v1/models/chat/stop"),
}
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


async def ask(house: House, name: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with house.client.request(method, house.urls[name] + path, **options) as response:
        return response.status, await response.json()


@DOORS
async def test_every_answer_of_a_loaded_model_and_its_house_has_all_that_is_documented(
    tmp_path: Path, name: str
) -> None:
    async with open_house(tmp_path) as house:
        assert (await ask(house, name, "POST", "/v1/chat/completions", json=CHAT))[0] == 200
        for example, (method, path) in ANSWERS.items():
            status, answer = await ask(house, name, method, path)
            assert (status, differences(document(f"answers/{example}.json"), answer)) == (200, []), example


@DOORS
async def test_what_is_not_loaded_has_no_port_and_else_the_same_fields(tmp_path: Path, name: str) -> None:
    """A port is known when the process has one: a start that is not waited for cannot tell it."""
    async with open_house(tmp_path) as house:
        for example in ("info", "status"):
            _, answer = await ask(house, name, *ANSWERS[example])
            nulls = frozenset({"port", "last_used"})
            assert differences(document(f"answers/{example}.json"), answer, nulls=nulls) == []
        _, answer = await ask(house, name, "POST", "/v1/models/chat/start")
        assert differences(document("answers/start.json"), answer, nulls=frozenset({"port"})) == []
        assert answer["status"] == "starting"


@DOORS
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("model_not_found", 404),
        ("model_not_loaded", 400),
        ("invalid_request", 400),
        ("rate_limit_exceeded", 429),
        ("server_error", 500),
        ("service_unavailable", 503),
    ],
)
async def test_every_documented_error(tmp_path: Path, name: str, code: str, status: int) -> None:
    write_model(tmp_path / "models" / "broken.gguf", {"tokenizer.ggml.model": None})
    asked = {"model_not_found": "invalid-model", "model_not_loaded": "broken"}.get(code, "chat")
    body = {**CHAT, "model": asked} if code != "invalid_request" else {"model": 7}
    door = Door(rate_limits=NO_LIMITS.model_copy(update={"requests_per_minute": 1}))
    flags = ("--fake-exit", "1") if code == "service_unavailable" else ()
    async with open_house(tmp_path, door=door, flags=flags) as house:
        if code == "rate_limit_exceeded":
            await ask(house, name, "GET", "/v1/models")
        if code == "server_error":
            object.__setattr__(house.services, "supervisor", None)  # the house is now broken
        found, answer = await ask(house, name, "POST", "/v1/chat/completions", json=body)
    example = document("answers/rate_limit.json" if code == "rate_limit_exceeded" else "answers/error.json")
    assert (found, answer["error"]["code"]) == (status, code)
    assert differences(example, answer) == []
    if example["error"]["code"] == code:
        assert answer["error"]["type"] == example["error"]["type"]
        start = example["error"]["message"].partition(" Try")[0]
        assert answer["error"]["message"].startswith(start)


def test_a_difference_is_found() -> None:
    example = {"a": 1, "b": {"c": 0.5}, "d": [{"e": "x"}], "f": True}
    assert differences(example, {"a": 2, "b": {"c": 3}, "d": [{"e": ""}], "f": False, "more": None}) == []
    wrong = {"a": 1.5, "b": {}, "d": [{"e": "x"}, {"e": 1}], "f": 1}
    assert len(differences(example, wrong)) == 4
    assert differences(example, {**example, "d": [], "a": None}) != []
    assert differences({"a": 1}, json.loads('{"a": null}'), nulls=frozenset({"a"})) == []
