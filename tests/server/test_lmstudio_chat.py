"""LM Studio's chats through a real door, with a real child that says what it is told to."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest
from doors import open_house

from llamarunner.config import NO_LIMITS, ApiKey, Door
from tests.programs.write_gguf import write_model, write_projector
from tests.server.chatting import (
    DEEP,
    EPHEMERAL,
    PATH,
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


async def test_a_chat_is_deleted_as_responses_are(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        made = (await ask(house))["response_id"]
        async with house.client.delete(f"{house.url}/v1/responses/{made}") as response:
            assert (response.status, (await response.json())["deleted"]) == (200, True)
        gone = await ask(house, 400, previous_response_id=made)
    assert gone["error"]["code"] == "previous_response_not_found"


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


async def test_a_chat_with_images_goes_on_with_a_model_that_sees_alone(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "eyes" / "eyes.gguf")
    write_projector(tmp_path / "models" / "eyes" / "mmproj-eyes.gguf")
    async with open_house(tmp_path) as house:
        image = {"type": "image", "data_url": "data:image/png;base64,iVBORw0KGgo="}
        first = await ask(house, model="eyes", input=[{"type": "text", "content": "what?"}, image])
        await ask(house, model="eyes", input="why?", previous_response_id=first["response_id"])
        error = (await ask(house, 400, input="why?", previous_response_id=first["response_id"]))["error"]
        assert error["message"] == "Model 'chat' does not support image inputs."
        assert error["param"] == "previous_response_id"
        assert house.services.supervisor.loaded() == ["eyes"]


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


async def test_what_a_created_model_brings_along_holds_here_too(tmp_path: Path) -> None:
    made = {"model": "mine", "from": "chat", "system": "S", "parameters": {"temperature": 0.5, "top_k": 7}}
    async with open_house(tmp_path) as house:
        async with house.client.post(house.urls["ollama"] + "/api/create", json={**made, "stream": False}) as response:
            assert response.status == 200, await response.text()
        await ask(house, model="mine", temperature=0)
        (asked,) = await bodies(house)
    assert asked["messages"][0] == {"role": "system", "content": "S"}
    assert (asked["temperature"], asked["top_k"]) == (0, 7)
