"""The description of our API: it says what is there, and what it says is so."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from doors import PROGRAMS, House, open_house

from llamarunner.config import ModelSettings
from llamarunner.server import anthropic_api, guards, listener, openai_api, openapi, sdk_api
from llamarunner.server.models_api import OWNERS
from llamarunner.server.operation import Count, Flag, Operation, plain
from tests.server.test_keys import bearing, door

DOORS = pytest.mark.parametrize("name", ["ollama", "lmstudio"])
CHECKS = """
[checks]
enabled = true

[[operations]]
include-path = "/v1/webhooks/register"
checks.positive_data_acceptance.enabled = false  # which URLs and events there are is beyond a schema
"""
START = "/v1/models/{id}/start"
MODELS: dict[str, dict[str, Any]] = {"chat": {}, "publisher/chat/other": {}}


async def described(house: House, name: str = "lmstudio", **headers: str) -> Any:
    async with house.client.get(house.urls[name] + "/openapi.json", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        return await response.json()


@pytest.mark.parametrize("name", ["lmstudio", "wrapper"])
def test_every_route_of_ours_is_described_and_no_other(name: str) -> None:
    routes = {key: handler for key, handler in listener._routes(name).items() if key[0] != "HEAD"}
    passed = {path for one in openai_api.PATHS | anthropic_api.PATHS for path in (one, f"/v1{one}")}
    passed |= {guards.CHANNEL_PATH}  # OpenAPI has no words for websockets
    passed |= {path for _, path in sdk_api.ROUTES}  # what LM Studio's SDKs look for
    passed |= {path for _, path in routes if path.startswith("/v1/v1/")}
    ours = {key: handler for key, handler in routes.items() if key[1] not in passed}
    told = {(one.method, one.path): one.handler for one in openapi.operations(name)}
    assert told == {(method, plain(path)): handler for (method, path), handler in ours.items()}


@DOORS
async def test_the_document_is_whole(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path, models={}) as house:
        told = await described(house, name)
    assert told["openapi"].startswith("3.1")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", told["info"]["version"])
    operations = [one for path in told["paths"].values() for one in path.values()]
    assert all(one["summary"].endswith(".") for one in operations)
    assert len({one["operationId"] for one in operations}) == len(operations) > len(openapi.OPERATIONS)
    assert told["paths"]["/v1/chat/completions"]["post"]["tags"] == ["inference"]
    assert all({"503", "default"} & one["responses"].keys() for one in operations), (
        "the cap of connections is everywhere"
    )
    schemas = told["components"]["schemas"]
    assert schemas["ModelStatus"]["properties"]["status"]["enum"] == ["loaded", "loading", "unloaded", "error"]
    assert schemas["Error"]["required"] == ["code", "message", "type", "param"]
    assert schemas["Overrides"]["properties"].keys() == ModelSettings.model_fields.keys() - OWNERS
    assert schemas["Overrides"]["additionalProperties"] is False
    answer = told["paths"]["/v1/models/{id}/status"]["get"]["responses"]["200"]
    assert {"X-Request-ID", "X-RateLimit-Remaining", "RateLimit"} <= answer["headers"].keys()
    assert "Retry-After" in told["components"]["responses"]["TooManyRequests"]["headers"]


async def test_a_locked_door_says_that_it_is(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door("right")) as house:
        async with house.client.get(house.url + "/openapi.json") as response:
            assert response.status == 401
        locked = await described(house, **bearing("right"))
    async with open_house(tmp_path, models={}) as house:
        free = await described(house)
    assert locked["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert free["security"] == [*locked["security"], {}]
    assert locked["components"]["securitySchemes"].keys() == {"bearer", "x-api-key"}
    assert locked["paths"]["/health"]["get"]["security"] == []


def test_another_kind_of_operation_is_one_more_entry() -> None:
    words = "Say something.\n\nAt length."
    form = Operation(
        *("POST", "/v1/x/{name}", words, str),
        media="text/plain",
        status=201,
        body=bytes,
        body_media="application/octet-stream",
        parameters=(Flag("loud", "Shout."), Count("times", "How often.", 1, 9)),
        errors=frozenset({404}),
    )
    told = openapi.describe([form], locked=True)["paths"]["/v1/x/{name}"]["post"]
    assert (told["summary"], told["description"]) == ("Say something.", "At length.")
    assert [parameter["name"] for parameter in told["parameters"]] == ["name", "loud", "times"]
    assert told["responses"]["201"]["content"] == {"text/plain": {"schema": {"type": "string"}}}
    assert "404" in told["responses"]
    assert told["requestBody"]["content"].keys() == {"application/octet-stream"}


@DOORS
@pytest.mark.timeout(180)  # hundreds of requests
@pytest.mark.parametrize("phase", ["fuzzing", "coverage"])
async def test_whatever_is_sent_the_answers_are_as_described(tmp_path: Path, name: str, phase: str) -> None:
    """With schemathesis: every check that it has, with right and wrong requests, and no 5xx but as described.

    Nearly every start has other settings than the one before, so the child is one that starts quickly, and what makes
    hundreds of them, every limit of every setting, is left out.
    """
    (tmp_path / "schemathesis.toml").write_text(CHECKS)
    async with open_house(tmp_path, models=MODELS, program=("scripted_llama.py", "[]")) as house:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", house.urls[name] + "/openapi.json"),
            *("--include-tag", "management", "--phases", phase),
            *(("--exclude-path", START) if phase == "coverage" else ()),
            *("--max-examples", "15", "--generation-database", "none", "--no-color"),
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(PROGRAMS)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        report = said.decode()
        assert process.returncode == 0, report
        managing = [one for one in openapi.operations(name) if one.tag == "management"]
        assert f"Tested: {len(managing) - (phase == 'coverage')}" in report, report
