"""OpenAI's Responses API through both doors, with a real child that says what it is told to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, ApiKey, Door
from tests.server.test_faults import read_until_cut

Json = dict[str, Any]
PATH = "/v1/responses"
TIMINGS = {"cache_n": 1, "prompt_n": 2, "predicted_n": 2, "predicted_ms": 10.0, "predicted_per_second": 200.0}
KEYS = [  # of a response, in LM Studio's order
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
]
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}


def told(**fake: Any) -> str:
    return json.dumps(fake)


async def ask(house: House, status: int = 200, /, **document: Any) -> Json:
    async with house.post(PATH, {"model": "chat", "input": "hello", **document}) as response:
        answer: Json = await response.json()
        assert response.status == status, answer
        return answer


async def events(house: House, /, **document: Any) -> list[Json]:
    async with house.post(PATH, {"model": "chat", "input": "hello", "stream": True, **document}) as response:
        assert response.status == 200, await response.text()
        found = re.findall(r"event: (.+)\ndata: (.+)\n\n", await response.text())
    documents = [json.loads(data) for _, data in found]
    assert [name for name, _ in found] == [one["type"] for one in documents]
    assert [one["sequence_number"] for one in documents] == list(range(len(documents)))
    return documents


async def last_body(house: House) -> Json:
    body: Json = house.journal("body")[-1]["body"]
    return body


@pytest.mark.parametrize("door", ["ollama", "lmstudio"])
async def test_a_response_has_all_fields_and_can_be_read_again_and_deleted(tmp_path: Path, door: str) -> None:
    async with open_house(tmp_path) as house:
        base = house.urls[door] + PATH
        async with house.client.post(
            base, json={"model": "chat", "input": told(tokens=2, timings=TIMINGS)}
        ) as response:
            made = await response.json()
        one = f"{base}/{made['id']}"
        async with house.client.get(one) as response:
            assert await response.json() == made
        async with house.client.get(f"{one}/input_items") as response:
            items = await response.json()
        async with house.client.delete(one) as response:
            assert await response.json() == {"id": made["id"], "object": "response", "deleted": True}
        for method in ("GET", "DELETE"):
            async with house.client.request(method, one) as response:
                assert response.status == 404
                assert (await response.json())["error"]["code"] == "response_not_found"
    assert re.fullmatch("resp_[0-9a-f]{48}", made["id"])
    assert list(made) == KEYS
    (message,) = made["output"]
    assert message["content"] == [{"type": "output_text", "text": "t0 t1 ", "annotations": [], "logprobs": []}]
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", "completed")
    assert made["usage"] == {
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    assert [item["content"][0]["text"] for item in items["data"]] == [told(tokens=2, timings=TIMINGS)]
    assert (items["first_id"], items["last_id"], items["has_more"]) == (*[items["data"][0]["id"]] * 2, False)


async def test_a_chat_goes_on_and_branches(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await ask(house, input="one", instructions="Be brief.")
        second = (await events(house, input="two", previous_response_id=first["id"]))[-1]["response"]
        await ask(house, input="three", previous_response_id=second["id"])
        three = (await last_body(house))["messages"]
        await ask(house, input="other", previous_response_id=first["id"], store=False)
        other = (await last_body(house))["messages"]
        unkept = await ask(house, input="x", store=False)
        await ask(house, 400, previous_response_id=unkept["id"])
        refused = await ask(house, 400, previous_response_id="resp_0")
    said = {"role": "assistant", "content": "t0 t1 t2 t3 t4 "}
    one, two = ({"role": "user", "content": text} for text in ("one", "two"))
    assert three == [one, said, two, said, {"role": "user", "content": "three"}], "instructions hold for one request"
    assert other == [one, said, {"role": "user", "content": "other"}]
    assert (second["previous_response_id"], second["store"], unkept["store"]) == (first["id"], True, False)
    assert (refused["error"]["code"], refused["error"]["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )


async def test_every_event_of_a_text_in_its_order(tmp_path: Path) -> None:
    deltas = [{"reasoning_content": "Hm."}, {"content": "Yes"}, {"content": "."}]
    async with open_house(tmp_path) as house:
        stream = await events(house, input=told(deltas=deltas))
        kept = await house.client.get(f"{house.url}{PATH}/{stream[-1]['response']['id']}")
        assert await kept.json() == stream[-1]["response"]
    assert [one["type"].removeprefix("response.") for one in stream] == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_text.delta", "reasoning_text.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [one["output_index"] for one in stream if "output_index" in one] == [0] * 4 + [1] * 7
    assert stream[0]["response"]["status"] == "in_progress"
    assert stream[-1]["response"]["output"] == [one["item"] for one in stream if one["type"].endswith("item.done")]
    assert stream[-1]["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}


async def test_a_function_is_called_by_the_client(tmp_path: Path) -> None:
    call = [{"index": 0, "id": "x", "function": {"name": "add", "arguments": '{"a":'}}]
    more = [{"index": 0, "function": {"arguments": " 1}"}}]
    async with open_house(tmp_path) as house:
        deltas = [{"tool_calls": call}, {"tool_calls": more}]
        stream = await events(house, input=told(deltas=deltas), tools=[ADD], tool_choice="required")
        asked = await last_body(house)
        (item,) = stream[-1]["response"]["output"]
        result = {"type": "function_call_output", "call_id": item["call_id"], "output": "2"}
        await ask(house, input=[result], previous_response_id=stream[-1]["response"]["id"], tools=[ADD])
        messages = (await last_body(house))["messages"]
    assert asked["tools"] == [
        {"type": "function", "function": {key: value for key, value in ADD.items() if key != "type"}}
    ]
    assert asked["tool_choice"] == "required"
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "add", '{"a": 1}')
    assert [one["type"].removeprefix("response.") for one in stream[2:-1]] == [
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
    ]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == item["call_id"]
    assert messages[2]["content"] == "2"


async def test_what_the_model_is_asked(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    async with open_house(tmp_path) as house:
        await ask(
            house,
            instructions="S",
            input=[
                {"role": "developer", "content": "D"},
                {"role": "user", "content": [{"type": "input_text", "text": "Q"}]},
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "R"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
                {"role": "user", "content": "again"},
            ],
            **{"temperature": 0.1, "max_output_tokens": 9, "top_logprobs": 2, "seed": 3, "metadata": {"k": "v"}},
            text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
            reasoning={"effort": "low"},
            tools=[{"type": "web_search"}],
        )
        asked = await last_body(house)
    assert asked == {
        "model": "chat",
        "messages": [
            {"role": "system", "content": "S\n\nD"},
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": "A", "reasoning_content": "R"},
            {"role": "user", "content": "again"},
        ],
        **{"stream": True, "stream_options": {"include_usage": True}},
        **{"temperature": 0.1, "max_tokens": 9, "logprobs": True, "top_logprobs": 2, "seed": 3},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"},
    }


MISTAKES: list[tuple[Json, str]] = [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": ["x"]}, "input[0]"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
    ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": 5}]}, "input[0].output"),
    ({"previous_response_id": 5}, "previous_response_id"),
    ({"store": "yes"}, "store"),
    ({"stream": 1}, "stream"),
    ({"instructions": []}, "instructions"),
    ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://x"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tool_choice": "always"}, "tool_choice"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ({"max_output_tokens": "9"}, "max_output_tokens"),
]


async def test_a_mistake_names_its_field(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        named = [((await ask(house, 400, **wrong))["error"]["param"]) for wrong, _ in MISTAKES]
        async with house.post(PATH, {"model": "chat"}) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "input")
        assert house.journal("start") == []
    assert named == [param for _, param in MISTAKES]


async def test_a_response_is_private_to_its_key(tmp_path: Path) -> None:
    door = Door(rate_limits=NO_LIMITS, api_keys=(ApiKey(key="a" * 9), ApiKey(key="b" * 9)))  # type: ignore[arg-type]
    async with open_house(tmp_path, door=door) as house:
        mine, other = ({"Authorization": f"Bearer {letter * 9}"} for letter in "ab")
        async with house.post(PATH, {"model": "chat", "input": "x"}, headers=mine) as response:
            made = await response.json()
        one = f"{house.url}{PATH}/{made['id']}"
        for method in ("GET", "DELETE"):
            async with house.client.request(method, one, headers=other) as response:
                assert response.status == 404
        document = {"model": "chat", "input": "y", "previous_response_id": made["id"]}
        async with house.post(PATH, document, headers=other) as response:
            assert response.status == 400
        async with house.client.get(one.replace(house.url, house.urls["ollama"]), headers=mine) as response:
            assert response.status == 200, "the same key on another door"


async def test_an_answer_that_breaks_off_is_not_kept(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        document = {"model": "chat", "input": told(tokens=1, then="stop")}
        await ask(house, 502, **document)
        async with house.post(PATH, {**document, "stream": True}) as response:
            text, cut = await read_until_cut(response)
        assert cut
        assert text.rpartition("event: ")[2].startswith("error\n")
        assert not (tmp_path / "chats").exists()
        assert house.leases() == 0
