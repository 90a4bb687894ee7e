"""LM Studio's chats through a real door, with a real child that says what it is told to."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, ApiKey, Door
from llamarunner.server.services import Services
from llamarunner.toolbox import Asker, Integration, Outcome, Tool, Toolbox, ToolFailed

Json = dict[str, Any]
PATH = "/api/v1/chat"
TIMINGS = {"cache_n": 1, "prompt_n": 2, "predicted_n": 2, "predicted_ms": 10.0, "predicted_per_second": 200.0}
PROVIDER = {"type": "ephemeral_mcp", "server_label": "sums"}
ADD = Tool(
    "add",
    "Adds two numbers",
    {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]},
    PROVIDER,
)
EPHEMERAL = {"type": "ephemeral_mcp", "server_label": "sums", "server_url": "http://sums.example"}
DEEP = {"architecture": "gpt-oss", "metadata": {"tokenizer.chat_template": "{{ messages }} {{ reasoning_effort }}"}}


def told(**fake: Any) -> str:
    """A message that tells the child how to answer."""
    return json.dumps(fake)


def called(name: str, arguments: str, index: int = 0) -> Json:
    return {"tool_calls": [{"index": index, "id": "x", "function": {"name": name, "arguments": arguments}}]}


async def ask(house: House, status: int = 200, /, **document: Any) -> Json:
    async with house.post(PATH, {"model": "chat", "input": "hello", **document}) as response:
        answer: Json = await response.json()
        assert response.status == status, answer
        return answer


async def events(house: House, /, **document: Any) -> list[Json]:
    """All events of a stream; each one's name is its type, and the end is clean."""
    async with house.post(PATH, {"model": "chat", "input": "hello", "stream": True, **document}) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        text = await response.text()
    found = re.findall(r"event: (.+)\ndata: (.+)\n\n", text)
    documents = [json.loads(data) for _, data in found]
    assert [name for name, _ in found] == [one["type"] for one in documents]
    assert documents[-1]["type"] == "chat.end"
    return documents


def kinds(stream: Sequence[Json]) -> list[str]:
    """The types of events, those in a row that are alike but once."""
    every = [one["type"] for one in stream]
    return [kind for at, kind in enumerate(every) if at == 0 or every[at - 1] != kind]


async def bodies(house: House) -> list[Json]:
    return [line["body"] for line in house.journal("body")]


class Tools:
    """A toolbox of the contract, in memory: `answers` are texts by tool, or an error to raise."""

    def __init__(self, answers: Mapping[str, str | Exception], tools: Sequence[Tool] = (ADD,)) -> None:
        self.tools = tools
        self.calls: list[tuple[str, Json]] = []
        self.opened = 0
        self._answers = answers

    async def call(self, name: str, arguments: Mapping[str, object]) -> Outcome:
        self.calls.append((name, dict(arguments)))
        answer = self._answers[name]
        if isinstance(answer, Exception):
            raise answer
        return Outcome(json.dumps([{"type": "text", "text": answer}]), failed=False)


def give(services: Services, tools: Tools, *, failing: Exception | None = None) -> None:
    """Let requests that name a server of tools have these."""

    class Toolboxes(type(services.toolboxes)):  # type: ignore[misc]
        def check(self, integrations: Sequence[Integration], asker: Asker) -> None:
            pass

        @asynccontextmanager
        async def opened(self, integrations: Sequence[Integration], asker: Asker) -> AsyncIterator[Toolbox]:
            if failing:
                raise failing
            tools.opened += 1
            try:
                yield tools if integrations else Tools({}, [])
            finally:
                tools.opened -= 1

    services.toolboxes = Toolboxes(services.settings.mcp, services.outbound)


# ── whole ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_text_is_answered(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        answer = await ask(house, input=told(tokens=2, timings=TIMINGS))
        assert answer["stats"].pop("model_load_time_seconds") > 0
        again = await ask(house, input=told(tokens=2, timings=TIMINGS))
    assert re.fullmatch(r"resp_[0-9a-f]{48}", answer.pop("response_id"))
    assert answer.pop("output") == [{"type": "message", "content": "t0 t1 "}]
    assert answer["stats"].pop("time_to_first_token_seconds") > 0
    assert answer == {
        "model_instance_id": "chat",
        "stats": {
            "input_tokens": 3,
            "total_output_tokens": 2,
            "reasoning_output_tokens": 0,
            "tokens_per_second": 200.0,
        },
    }
    assert "model_load_time_seconds" not in again["stats"]


async def test_what_the_model_is_asked(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": DEEP}) as house:
        await ask(
            house,
            system_prompt="Be brief.",
            input=[{"type": "text", "content": "one"}, {"type": "message", "content": "two"}],
            **{"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "repeat_penalty": 1.1},
            **{"max_output_tokens": 7, "reasoning": "high", "context_length": 2048},
        )
        (asked,) = await bodies(house)
        (start,) = house.journal("start")
    assert asked == {
        "model": "chat",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        ],
        **{"stream": True, "return_progress": True, "stream_options": {"include_usage": True}},
        **{"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "repeat_penalty": 1.1, "max_tokens": 7},
        "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "high"},
    }
    assert "2048" in start["argv"]


async def test_a_model_that_runs_is_not_loaded_anew_for_another_context(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await ask(house)
        await ask(house, context_length=512)
        assert len(house.journal("start")) == 1


MISTAKES: list[tuple[Json, int, str | None, str | None]] = [
    ({"seed": 1}, 400, "unrecognized_keys", None),
    ({"model": None}, 400, "invalid_type", "model"),
    ({"model": "nope"}, 404, "model_not_found", "model"),
    ({"input": []}, 400, "invalid_value", "input"),
    ({"input": 5}, 400, "invalid_type", "input"),
    ({"input": [{"type": "image"}]}, 400, "invalid_value", "input[0]"),
    ({"input": [{"type": "image", "data_url": "http://x/y.png"}]}, 400, "invalid_value", "input[0].data_url"),
    ({"input": [{"type": "image", "data_url": "data:image/png;base64,AAAA"}]}, 400, "invalid_value", "input"),
    ({"input": [{"type": "text", "text": "x"}]}, 400, "unrecognized_keys", None),
    ({"temperature": 1.5}, 400, "invalid_value", "temperature"),
    ({"max_output_tokens": 0}, 400, "invalid_value", "max_output_tokens"),
    ({"top_k": "x"}, 400, "invalid_type", "top_k"),
    ({"reasoning": "on"}, 400, "invalid_value", "reasoning"),
    ({"reasoning": "much"}, 400, "invalid_value", "reasoning"),
    ({"previous_response_id": "resp_1"}, 400, "previous_response_not_found", "previous_response_id"),
    ({"previous_response_id": "x"}, 400, "invalid_value", "previous_response_id"),
    ({"integrations": [{"type": "plugin"}]}, 400, "invalid_value", "integrations[0]"),
    ({"integrations": [{"type": "plugin", "id": "mcp/x", "headers": {}}]}, 400, "invalid_value", "integrations[0]"),
    ({"integrations": ["mcp/x"]}, 403, None, "integrations"),
    ({"integrations": [EPHEMERAL]}, 403, None, "integrations"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_mistake_is_told_and_loads_nothing(tmp_path: Path, stream: bool) -> None:
    told_of = []
    async with open_house(tmp_path) as house:
        for wrong, status, _, _ in MISTAKES:
            error = (await ask(house, status, stream=stream, **wrong))["error"]
            assert error["type"] == ("model_not_found" if status == 404 else "invalid_request")
            told_of.append((wrong, status, error.get("code"), error.get("param")))
        assert house.journal("start") == []
    assert told_of == MISTAKES


async def test_the_words_that_clients_know(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": DEEP}) as house:
        refused = await ask(house, 400, reasoning="off")
        missing = await ask(house, 404, model="translategemma:27b")
        async with house.post(PATH, {"input": "hello"}) as response:
            unnamed = await response.json()
    assert refused == {
        "error": {
            "message": "Reasoning setting 'off' is not supported by model 'chat'. "
            "Supported settings: 'low', 'medium', 'high'.",
            "type": "invalid_request",
            "param": "reasoning",
            "code": "invalid_value",
        }
    }
    assert missing["error"]["message"].startswith('Invalid model identifier "translategemma:27b"')
    assert unnamed["error"]["message"] == '"model" is required'
    assert unnamed["error"]["code"] == "missing_required_parameter"


async def test_a_refusal_or_failure_of_the_model_has_its_status(tmp_path: Path) -> None:
    async with open_house(tmp_path, defaults={"ctx_size": 600}) as house:
        for stream in (False, True):
            assert "as you wish" in (await ask(house, 400, input=told(status=400), stream=stream))["error"]["message"]
            await ask(house, 502, input=told(tokens=0, then="reset"), stream=stream)
            too_long = (await ask(house, 400, input="x" * 700, stream=stream))["error"]
            assert "n_keep: 700>= n_ctx: 600" in too_long["message"]
        await ask(house, 502, input=told(tokens=2, then="stop"))
        assert house.leases() == 0


# ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_event_in_its_order(tmp_path: Path) -> None:
    deltas = [{"reasoning_content": "Hm"}, {"reasoning_content": "m"}, {"content": "Yes"}, {"content": "."}]
    asked = told(deltas=deltas, progress=[0, 0.5, 1], timings=TIMINGS)
    async with open_house(tmp_path, flags=("--fake-slow", "0.3")) as house:
        stream = await events(house, input=asked)
        again = await events(house, input=asked, store=False)
    loading = ["model_load.start", "model_load.progress", "model_load.end"]
    rest = [
        *("prompt_processing.start", "prompt_processing.progress", "prompt_processing.end"),
        *("reasoning.start", "reasoning.delta", "reasoning.end", "message.start", "message.delta", "message.end"),
        "chat.end",
    ]
    assert kinds(stream) == ["chat.start", *loading, *rest]
    assert kinds(again) == ["chat.start", *rest]
    assert stream[0] == {"type": "chat.start", "model_instance_id": "chat"}
    ended = next(one for one in stream if one["type"] == "model_load.end")
    progress = [one["progress"] for one in stream if one["type"] == "prompt_processing.progress"]
    result = stream[-1]["result"]
    assert progress == [0.0, 0.5, 1.0]
    assert result["output"] == [{"type": "reasoning", "content": "Hmm"}, {"type": "message", "content": "Yes."}]
    assert result["stats"]["reasoning_output_tokens"] == 2
    assert ended["load_time_seconds"] == pytest.approx(result["stats"]["model_load_time_seconds"], abs=0.2)
    assert ended["load_time_seconds"] > 0.2
    assert "response_id" not in again[-1]["result"]
    assert "model_load_time_seconds" not in again[-1]["result"]["stats"]


async def test_a_model_that_cannot_be_loaded_is_an_error_event(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-late", "0.2", "--fake-exit", "3")) as house:
        stream = await events(house)
        assert kinds(stream) == ["chat.start", "model_load.start", "error", "chat.end"]
        assert stream[-2]["error"]["type"] == "internal_error"
        assert stream[-1]["result"]["output"] == []
        assert "response_id" not in stream[-1]["result"]


@pytest.mark.parametrize("end", ["reset", "stop", "die"])
async def test_a_failure_in_the_middle_is_an_event_and_the_end_has_what_was_said(tmp_path: Path, end: str) -> None:
    async with open_house(tmp_path) as house:
        stream = await events(house, input=told(tokens=2, then=end))
        assert kinds(stream)[-5:] == ["message.start", "message.delta", "message.end", "error", "chat.end"]
        assert stream[-1]["result"]["output"] == [{"type": "message", "content": "t0 t1 "}]
        assert "response_id" not in stream[-1]["result"]
        assert house.leases() == 0


async def test_when_the_server_stops_the_stream_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        asked = asyncio.ensure_future(events(house, input=told(tokens=1, then="hang")))  # noqa: TID251
        await house.wait_for("token")
        house.services.drain.begin()
        house.services.drain.expire()
        assert kinds(await asked)[-2:] == ["error", "chat.end"]


async def test_a_hang_up_stops_the_model_and_keeps_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        document = {"model": "chat", "input": told(tokens=10_000, delay=0.01)}
        async with house.post(PATH, {**document, "stream": True}) as response:
            await response.content.readuntil(b"message.delta")
            response.close()
        await house.wait_for("hangup")
        with pytest.raises(TimeoutError):
            await house.post(PATH, document, timeout=aiohttp.ClientTimeout(total=0.3))
        await house.wait_for("hangup", 2)
        await house.until(lambda: house.leases() == 0)
        assert not (tmp_path / "chats").exists()


async def test_silence_is_filled_and_bounded(tmp_path: Path) -> None:
    limits = {"token_seconds": 0.4, "sse_keepalive_seconds": 0.05}
    async with open_house(tmp_path, server=limits) as house:
        document = {"model": "chat", "stream": True, "input": told(tokens=1, then="hang")}
        async with house.post(PATH, document) as response:
            text = await response.text()
    assert ": keep-alive\n\n" in text
    assert "fell silent" in text
    assert text.rstrip().rpartition("event: ")[2].startswith("chat.end")


# ── tools ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        whole = await ask(house, 424, **asked)
        give(house.services, Tools({}), failing=ToolFailed("Not there."))
        before = await ask(house, 424, **asked, stream=True)
        assert house.leases() == 0
    assert kinds(stream)[-3:] == ["tool_call.arguments", "error", "chat.end"]
    assert stream[-2]["error"]["type"] == "mcp_connection_error"
    assert stream[-1]["result"]["output"] == [{"type": "message", "content": "Well."}]
    assert whole["error"] == {"type": "mcp_connection_error", "message": "Gone.", "code": "mcp_connection_error"}
    assert before["error"]["message"] == "Not there."


# ── kept chats ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_chat_goes_on_and_branches(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await ask(house, input="one", system_prompt="S")
        second = await ask(house, input="two", previous_response_id=first["response_id"])
        await ask(house, input="three", previous_response_id=second["response_id"])
        await ask(house, input="other", previous_response_id=first["response_id"], system_prompt="T", store=False)
        asked = [[(one["role"], one["content"]) for one in body["messages"]] for body in await bodies(house)]
    said = ("assistant", "t0 t1 t2 t3 t4 ")
    one, two, three = (("user", text) for text in ("one", "two", "three"))
    assert asked == [
        [("system", "S"), one],
        [("system", "S"), one, said, two],
        [("system", "S"), one, said, two, said, three],
        [("system", "T"), one, said, ("user", "other")],
    ]


async def test_tools_and_reasoning_are_remembered(tmp_path: Path) -> None:
    deltas = [{"reasoning_content": "Hm."}, called("add", '{"a":1,"b":2}')]
    async with open_house(tmp_path) as house:
        give(house.services, Tools({"add": "3"}))
        first = await ask(house, input=told(deltas=deltas), integrations=[EPHEMERAL])
        await ask(house, input="next", previous_response_id=first["response_id"])
        messages = (await bodies(house))[-1]["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[1]["reasoning_content"] == "Hm."
    assert messages[2]["content"] == "3"


async def test_nothing_is_kept_that_is_not_to_be(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        assert "response_id" not in await ask(house, store=False)
        assert not (tmp_path / "chats").exists()
    async with open_house(tmp_path, chats={"enabled": False}) as house:
        assert "response_id" not in await ask(house)
        assert not (tmp_path / "chats").exists()


async def test_a_chat_is_private_to_its_key(tmp_path: Path) -> None:
    door = Door(rate_limits=NO_LIMITS, api_keys=(ApiKey(key="a" * 9), ApiKey(key="b" * 9)))  # type: ignore[arg-type]
    async with open_house(tmp_path, door=door) as house:
        mine, other = ({"Authorization": f"Bearer {letter * 9}"} for letter in "ab")
        async with house.post(PATH, {"model": "chat", "input": "x"}, headers=mine) as response:
            response_id = (await response.json())["response_id"]
        document = {"model": "chat", "input": "y", "previous_response_id": response_id}
        for headers, status in ((other, 400), (mine, 200)):
            async with house.post(PATH, document, headers=headers) as response:
                assert response.status == status
                if status == 400:
                    assert (await response.json())["error"]["code"] == "previous_response_not_found"


async def test_a_store_that_cannot_be_used_costs_the_id_alone(tmp_path: Path) -> None:
    (tmp_path / "chats" / "chats.sqlite3").mkdir(parents=True)
    async with open_house(tmp_path) as house:
        assert "response_id" not in await ask(house)
        assert (await ask(house, 503, previous_response_id="resp_1"))["error"]["type"] == "internal_error"


async def test_only_lm_studios_door_has_it(tmp_path: Path) -> None:
    document = {"model": "chat", "input": "x"}
    async with (
        open_house(tmp_path) as house,
        house.client.post(house.urls["ollama"] + PATH, json=document) as response,
    ):
        assert response.status == 404
