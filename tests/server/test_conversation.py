"""Chats with tools: rounds, calls that can be made and calls that cannot, and their end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from doors import open_house

from llamarunner.toolbox import ToolFailed
from tests.server.chatting import (
    ADD,
    EPHEMERAL,
    PROVIDER,
    TIMINGS,
    Json,
    Tools,
    ask,
    bodies,
    called,
    events,
    give,
    kinds,
    told,
)


async def test_a_tool_is_called_and_its_result_goes_back(tmp_path: Path) -> None:
    deltas = [{"content": "Let me see."}, called("add", ""), called("", '{"a": 1,'), called("", ' "b": 2}')]
    tools = Tools({"add": told(tokens=1, timings=TIMINGS)})
    async with open_house(tmp_path) as house:
        give(house.services, tools)
        asked = {"input": told(deltas=deltas, timings=TIMINGS), "integrations": [EPHEMERAL]}
        whole = await ask(house, **asked)
        stream = await events(house, **asked)
        first, second = (await bodies(house))[:2]
        assert tools.opened == 0
    call = {"tool": "add", "arguments": {"a": 1, "b": 2}, "provider_info": PROVIDER}
    output = json.dumps([{"type": "text", "text": told(tokens=1, timings=TIMINGS)}])
    assert whole["output"] == [
        {"type": "message", "content": "Let me see."},
        {"type": "tool_call", **call, "output": output},
        {"type": "message", "content": "t0 "},
    ]
    assert whole["stats"]["total_output_tokens"] == 5
    assert tools.calls == [("add", {"a": 1, "b": 2})] * 2
    rounds = ["prompt_processing.start", "prompt_processing.progress", "prompt_processing.end"]
    said = ["message.start", "message.delta", "message.end"]
    made = ["tool_call.start", "tool_call.arguments", "tool_call.success"]
    assert kinds(stream) == ["chat.start", *rounds, *said, *made, *rounds, *said, "chat.end"]
    assert [one for one in stream if one["type"] in made] == [
        {"type": "tool_call.start", "tool": "add", "provider_info": PROVIDER},
        {"type": "tool_call.arguments", **call},
        {"type": "tool_call.success", **call, "output": output},
    ]
    assert stream[-1]["result"]["output"] == whole["output"]
    assert first["tools"] == [
        {
            "type": "function",
            "function": {"name": "add", "description": "Adds two numbers", "parameters": dict(ADD.parameters)},
        }
    ]
    answered, result = second["messages"][-2:]
    assert answered["content"] == "Let me see."
    assert json.loads(answered["tool_calls"][0]["function"]["arguments"]) == {"a": 1, "b": 2}
    assert re.fullmatch(r"\d{9}", result["tool_call_id"])
    assert (result["role"], result["tool_call_id"]) == ("tool", answered["tool_calls"][0]["id"])
    assert result["content"] == told(tokens=1, timings=TIMINGS)


async def test_calls_of_one_answer_are_told_one_after_the_other(tmp_path: Path) -> None:
    deltas = [called("add", '{"a":1,"b":1}'), called("add", '{"a":2,"b":2}', 1)]
    async with open_house(tmp_path) as house:
        give(house.services, tools := Tools({"add": "2"}))
        stream = await events(house, input=told(deltas=deltas), integrations=[EPHEMERAL])
        last = (await bodies(house))[-1]["messages"]
    made = [one for one in stream if one["type"].startswith("tool_call")]
    steps = ["tool_call.start", "tool_call.arguments", "tool_call.success"]
    assert [one["type"] for one in made] == steps * 2
    assert [one["arguments"]["a"] for one in made if "arguments" in one] == [1, 1, 2, 2]
    assert len(tools.calls) == 2
    ids = [call["id"] for call in last[1]["tool_calls"]]
    assert ids == [message["tool_call_id"] for message in last[2:]]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "item"),
    [
        pytest.param(
            *("browse", "{}"),
            {
                "reason": "Cannot find tool with name browse.",
                "metadata": {"type": "invalid_name", "tool_name": "browse"},
            },
            id="a tool that is not there",
        ),
        pytest.param(
            *("add", '{"a": 1, "b": "x"}'),
            {
                "reason": "Invalid arguments for tool add: 'b': 'x' is not of type 'number'.",
                "metadata": {
                    "type": "invalid_arguments",
                    "tool_name": "add",
                    "arguments": {"a": 1, "b": "x"},
                    "provider_info": PROVIDER,
                },
            },
            id="not as the schema says",
        ),
        pytest.param(
            *("add", '{"a": 1'),
            {
                "reason": "Invalid arguments for tool add: they are not a JSON object.",
                "metadata": {
                    "type": "invalid_arguments",
                    "tool_name": "add",
                    "arguments": {},
                    "provider_info": PROVIDER,
                },
            },
            id="no JSON",
        ),
    ],
)
async def test_a_call_that_cannot_be_made_is_told_to_the_model(
    tmp_path: Path, name: str, arguments: str, item: Json
) -> None:
    async with open_house(tmp_path) as house:
        give(house.services, tools := Tools({}))
        stream = await events(house, input=told(deltas=[called(name, arguments)]), integrations=[EPHEMERAL])
        last = (await bodies(house))[-1]["messages"][-1]
    (failure,) = [one for one in stream if one["type"] == "tool_call.failure"]
    assert failure == {"type": "tool_call.failure", **item}
    assert stream[-1]["result"]["output"][0] == {"type": "invalid_tool_call", **item}
    assert last["content"] == f"Error: {item['reason']}"
    assert tools.calls == []


async def test_a_chat_does_not_call_for_ever(tmp_path: Path) -> None:
    deltas = [called("add", '{"a":1,"b":1}')]
    async with open_house(tmp_path, mcp={"max_rounds": 3}) as house:
        give(house.services, tools := Tools({"add": told(deltas=deltas)}))
        answer = await ask(house, input=told(deltas=deltas), integrations=[EPHEMERAL])
        asked = await bodies(house)
    assert len(tools.calls) == 3
    assert ["tools" in one for one in asked] == [True, True, True, False]
    assert [one["type"] for one in answer["output"]] == ["tool_call"] * 3


async def test_a_lost_server_of_tools_ends_the_chat(tmp_path: Path) -> None:
    deltas = [{"content": "Well."}, called("add", '{"a":1,"b":1}')]
    asked = {"input": told(deltas=deltas), "integrations": [EPHEMERAL]}
    async with open_house(tmp_path) as house:
        give(house.services, Tools({"add": ToolFailed("Gone.")}))
        stream = await events(house, **asked)
        whole = await ask(house, 502, **asked)
        give(house.services, Tools({}), failing=ToolFailed("Not there."))
        before = await ask(house, 502, **asked, stream=True)
        assert house.leases() == 0
    assert kinds(stream)[-3:] == ["tool_call.arguments", "error", "chat.end"]
    assert stream[-2]["error"]["type"] == "mcp_connection_error"
    assert stream[-1]["result"]["output"] == [{"type": "message", "content": "Well."}]
    assert whole["error"] == {"type": "mcp_connection_error", "message": "Gone.", "code": "mcp_connection_error"}
    assert before["error"]["message"] == "Not there."
