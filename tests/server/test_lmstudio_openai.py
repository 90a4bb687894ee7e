"""OpenAI's paths on LM Studio's door: what passes untouched, how long a model stays, and what is said of mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door
from llamarunner.dialects.lmstudio.errors import MALFORMED_TOKEN, NO_TOKEN, UNKNOWN_TOKEN
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import AS_IT_IS, Manner
from llamarunner.server.lmstudio_openai import manner_of
from tests.server.test_keys import bearing, door

HELLO: list[dict[str, str]] = [{"role": "user", "content": "hello"}]
CHAT, V0 = "/v1/chat/completions", "/api/v0/chat/completions"
FORMATS = "'response_format.type' must be 'json_schema' or 'text'"
TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"


async def asked(house: House, path: str, document: Mapping[str, Any], **options: Any) -> tuple[int, Any]:
    async with house.post(path, document, **options) as response:
        return response.status, await response.json()


# ── what passes ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"max_tokens": -1}, id="no end"),
        pytest.param({"ttl": 300, "draft_model": "x", "preset": "y"}, id="LM Studio's own fields"),
        pytest.param({"messages": [{"role": "developer", "content": "be brief"}, *HELLO]}, id="a developer"),
        pytest.param({"response_format": {"type": "json_object"}}, id="any JSON"),
        pytest.param({"response_format": {"type": "text"}, "stop": None, "repeat_penalty": 1.1}, id="text"),
        pytest.param({"stream": True}, id="stream"),
    ],
)
async def test_what_llama_cpp_knows_reaches_it_byte_for_byte(tmp_path: Path, more: dict[str, Any]) -> None:
    body = json.dumps({"model": "chat", "messages": HELLO, **more}, indent=3).encode()
    async with open_house(tmp_path) as house:
        async with house.client.post(house.url + CHAT, data=body) as response:
            assert response.status == 200, await response.text()
            await response.read()
        assert [request["headers"]["Content-Length"] for request in house.journal("request")] == [str(len(body))]
        assert house.journal("body")[0]["body"] == json.loads(body)


# ── how long a model stays ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ttl", ["abc", -5, 0, None, True, [], 1e300, float("nan")], ids=repr)
def test_what_is_no_time_to_live_is_passed_over(ttl: Any) -> None:
    assert manner_of({"ttl": ttl}) == AS_IT_IS


def test_a_time_to_live_counts_for_the_load_alone() -> None:
    assert manner_of({"ttl": 300}) == Manner(first_ttl=300.0)


@pytest.mark.parametrize(
    ("path", "counts"),
    [(CHAT, True), (V0, True), ("/v1/completions", True), ("/v1/responses", False), ("/v1/messages", False)],
)
async def test_a_request_says_how_long_the_model_that_it_loads_stays(tmp_path: Path, path: str, counts: bool) -> None:
    async with open_house(tmp_path, supervisor={"ttl_seconds": 3600}) as house:
        for ttl in (300, 600):
            assert (
                await asked(house, path, {"model": "chat", "messages": HELLO, "prompt": "x", "input": "x", "ttl": ttl})
            )[0] == 200
            unit = house.services.supervisor.unit(house.services.catalog.find("chat"))
            assert unit is not None
            assert unit.terms.ttl == (300 if counts else 3600)


async def test_the_time_to_live_of_an_embedding_model_is_its_own(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await asked(house, "/v1/embeddings", {"model": "chat", "input": "x", "ttl": 42})
        unit = house.services.supervisor.unit(house.services.catalog.find("chat"), Task.EMBED)
        assert unit is not None
        assert unit.terms.ttl == 42


async def test_who_may_not_manage_models_does_not_say_how_long_they_stay(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(host="0.0.0.0", rate_limits=NO_LIMITS)) as house:
        await asked(house, CHAT, {"model": "chat", "messages": HELLO, "ttl": 42})
        unit = house.services.supervisor.unit(house.services.catalog.find("chat"))
        assert unit is not None
        assert unit.terms.ttl == 3600


# ── mistakes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "'messages' field is required"),
        ({"messages": None}, "'messages' field is required"),
        ({"messages": HELLO, "response_format": {"type": "xml"}}, FORMATS),
        ({"messages": HELLO, "response_format": "json"}, FORMATS),
    ],
    ids=["no messages", "null", "xml", "no object"],
)
async def test_mistakes_are_named_in_its_words_flat_in_v0_and_openais_way_in_v1(
    tmp_path: Path, document: dict[str, Any], text: str
) -> None:
    async with open_house(tmp_path) as house:
        assert await asked(house, V0, {"model": "chat", **document}) == (400, {"error": text})
        status, answer = await asked(house, CHAT, {"model": "chat", **document})
        assert (status, answer["error"]["message"], answer["error"]["type"]) == (400, text, "invalid_request_error")
        assert house.journal("start") == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_prompt_that_is_too_long_is_400_with_the_numbers(tmp_path: Path, stream: bool) -> None:
    """Not a stream that is empty."""
    text = (
        "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 100>= n_ctx: "
        "64). Try to load the model with a larger context length, or provide a shorter input."
    )
    document = {"model": "chat", "messages": [{"role": "user", "content": "x" * 100}], "stream": stream}
    async with open_house(tmp_path, flags=("--ctx-size", "64")) as house:
        assert await asked(house, V0, document) == (400, {"error": text})
        status, answer = await asked(house, CHAT, document)
        assert (status, answer["error"]["message"]) == (400, text)
        assert (answer["error"]["code"], answer["error"]["n_ctx"]) == ("context_length_exceeded", 64)


async def test_a_model_that_cannot_be_loaded_is_503_in_its_words(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path, flags=("--fake-exit", "1")) as house,
        house.post(V0, {"model": "chat", "messages": HELLO}) as response,
    ):
        error = (await response.json())["error"]
        assert (response.status, error["param"]) == (503, "model")
        assert error["message"].startswith('Failed to load model "chat". Error: ')
        assert int(response.headers["Retry-After"]) > 0


# ── tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({}, NO_TOKEN),
        (bearing("sk-lm-not-a-token"), MALFORMED_TOKEN.format(start="sk-lm-not-")),
        ({"x-api-key": "another-secret"}, UNKNOWN_TOKEN),
        (bearing(TOKEN), UNKNOWN_TOKEN),
    ],
    ids=["none", "malformed", "another", "unknown"],
)
@pytest.mark.parametrize("path", ["/v1/models", "/api/v0/models", "/api/v1/models", "/nothing"])
async def test_a_locked_door_says_what_is_wrong_with_a_token(
    tmp_path: Path, path: str, headers: dict[str, str], text: str
) -> None:
    async with open_house(tmp_path, models={}, door=door(TOKEN[:-1] + "x")) as house:
        async with house.client.get(house.url + path, headers=headers) as response:
            error = (await response.json())["error"]
            assert response.status == 401
        assert {key: value for key, value in error.items() if value is not None} == {
            "type": "invalid_request",
            "code": "invalid_api_key",
            "message": text,
        }


async def test_a_token_of_its_form_opens_the_door_in_either_header(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(TOKEN)) as house:
        for headers in (bearing(TOKEN), {"x-api-key": TOKEN}):
            async with house.client.get(house.url + "/v1/models", headers=headers) as response:
                assert response.status == 200


async def test_anthropics_clients_are_told_in_their_own_shape(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(TOKEN)) as house:
        status, answer = await asked(house, "/v1/messages", {"model": "chat"})
        assert (status, answer["type"], answer["error"]["type"]) == (401, "error", "authentication_error")
