"""Tokens as the client sees them, in the log and in the metrics, with the real runtime and the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import eventually
from tests.house.conftest import House, OpenHouse

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 20, "stream_options": {"include_usage": True}},
    "/v1/completions": {"prompt": "What is", "max_tokens": 9},
    "/v1/responses": {"input": "What is the capital of France?", "max_output_tokens": 20},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 20},
}
JSON_LOG = {"logging": {"format": "json"}}


def usages(value: Any) -> Iterator[dict[str, int]]:
    """Every `usage` in an answer, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get("usage"), dict):
            yield value["usage"]
        for part in value.values():
            yield from usages(part)


def seen_by_client(text: str, stream: bool) -> tuple[int, int]:
    """The tokens that an answer tells its client: of the prompt, and of the answer."""
    told = (
        [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")] if stream else [text]
    )
    merged: dict[str, int] = {}
    for usage in usages({str(number): json.loads(part) for number, part in enumerate(told)}):
        merged |= usage
    cached = merged.get("cache_read_input_tokens", 0)
    prompt = merged.get("prompt_tokens", merged.get("input_tokens", 0) + cached)
    return prompt, merged.get("completion_tokens", merged.get("output_tokens", 0))


def lines_of(house: House, request_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in house.log().splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line.get("request_id") == request_id]


async def total(http: aiohttp.ClientSession, house: House, name: str) -> float:
    async with http.get(house.url + "/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@pytest.mark.parametrize("stream", [False, True])
async def test_all_tell_the_same_tokens(open_house: OpenHouse, stream: bool) -> None:
    async with open_house(JSON_LOG) as house, aiohttp.ClientSession() as http:
        prompts = completions = 0
        for path, asked in ASKED.items():
            for number in range(2):  # the second time the prompt is in the cache
                document = {"model": "demo-chat", **asked, "stream": stream}
                request_id = f"{path}-{number}"
                headers = {"X-Request-ID": request_id}
                async with http.post(house.url + path, json=document, headers=headers) as response:
                    assert response.status == 200
                    prompt, completion = seen_by_client(await response.text(), stream)
                assert prompt > 1
                assert completion > 1
                prompts, completions = prompts + prompt, completions + completion
                await eventually(lambda request_id=request_id: bool(lines_of(house, request_id)))
                (line,) = lines_of(house, request_id)
                assert (line["prompt_tokens"], line["completion_tokens"]) == (prompt, completion), path
                assert line.get("stream", False) is stream
                assert ("first_token_ms" in line) is stream
        assert await total(http, house, "llamarunner_prompt_tokens_total") == prompts
        assert await total(http, house, "llamarunner_completion_tokens_total") == completions
        assert await total(http, house, "llamarunner_requests_total") >= 2 * len(ASKED)
        assert await total(http, house, "llamacpp_tokens_predicted_total") == completions, "the child says so too"
    assert "France" not in house.log()
