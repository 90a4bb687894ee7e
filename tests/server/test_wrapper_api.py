"""The wrapper API through a real door, with a real child that says what it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
from doors import House, open_house
from write_gguf import write_model, write_projector

from llamarunner.config import NO_LIMITS, Door, WrapperSettings

Json = dict[str, Any]
ROOT = "/api/lmstudio"
BERT = {"architecture": "bert", "metadata": {"bert.context_length": 512, "bert.pooling_type": 1}}
MODELS: dict[str, dict[str, Any]] = {"chat": {}, "embed": BERT}
HELLO = [{"role": "user", "content": "hello"}]
ADD = {"name": "add", "description": "Adds", "parameters": {"a": {"type": "number"}, "b": {"type": "number"}}}
CALL = {"id": "123456789", "type": "function", "function": {"name": "add", "arguments": '{"a":5,"b":10}'}}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


async def ask(house: House, method: str, path: str, document: object = None, status: int = 200) -> Json:
    async with house.client.request(method, house.url + ROOT + path, json=document) as response:
        answer: Json = await response.json()
        assert response.status == status, answer
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return answer


async def refused(house: House, method: str, path: str, document: object, status: int) -> Json:
    answer = await ask(house, method, path, document, status)
    assert answer.keys() == {"error"}
    assert answer["error"]["message"]
    return dict(answer["error"])


async def streamed(house: House, path: str, document: Json) -> list[Json]:
    async with house.post(ROOT + path, {**document, "stream": True}) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream"), await response.text()
        *chunks, done = (await response.text()).split("\n\n")[:-1]
    assert done == "data: [DONE]"
    return [json.loads(one.removeprefix("data: ")) for one in chunks]


async def until_cut(response: aiohttp.ClientResponse) -> bytes:
    """Read a stream that does not end well, up to there."""
    got = bytearray()
    try:
        while piece := await response.content.readany():
            got += piece
    except aiohttp.ClientPayloadError:
        return bytes(got)
    raise AssertionError("it ended as if all were well")


async def test_health_tells_of_the_models(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        await ask(house, "POST", "/models/load", {"model_key": "chat"})
        told = await ask(house, "GET", "/health")
        house.services.drain.begin()
        stopping = await ask(house, "GET", "/health", status=503)
    assert told == {
        "status": "healthy",
        "backend": "llamarunner",
        "message": "The models answer.",
        "models_available": 2,
        "models_loaded": 1,
    }
    assert stopping["status"] == "unhealthy"


async def test_models_are_listed_and_told_by_type_when_loaded(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        assert (await ask(house, "GET", "/models/loaded"))["models"] == []
        for key in MODELS:
            await ask(house, "POST", "/models/load", {"model_key": key})
        listed = (await ask(house, "GET", "/models"))["models"]
        loaded = {
            kind: [one["identifier"] for one in (await ask(house, "GET", f"/models/loaded{kind}"))["models"]]
            for kind in ("", "?model_type=llm", "?model_type=embedding")
        }
        (detail,) = (await ask(house, "GET", "/models/loaded?model_type=llm"))["models"]
        wrong = await refused(house, "GET", "/models/loaded?model_type=vlm", None, 400)
    assert [(one["model_key"], one["type"], one["loaded"]) for one in listed] == [
        ("chat", "llm", True),
        ("embed", "embedding", True),
    ]
    assert loaded == {"": ["chat", "embed"], "?model_type=llm": ["chat"], "?model_type=embedding": ["embed"]}
    assert (detail["model_key"], detail["context_length"], detail["quantization"]) == ("chat", 4096, "F32")
    assert detail["config"]["parallel"] == 4
    assert wrong["param"] == "model_type"


async def test_a_model_is_loaded_once_and_unloaded(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"maker/repo/mix": {}, "chat": {}}) as house:
        key = next(entry.id for entry in house.services.catalog.entries if "mix" in entry.id)
        first = await ask(house, "POST", "/models/load", {"model_key": key})
        again = await ask(house, "POST", "/models/load", {"model_key": key})
        started = house.journal("start")
        async with house.post("/api/v1/models/load", {"model": key}) as response:
            second = (await response.json())["instance_id"]
        gone = await ask(house, "DELETE", f"/models/unload/{second}")
        left = (await ask(house, "GET", "/models/loaded"))["models"]
        await ask(house, "DELETE", f"/models/unload/{key}")
        none = (await ask(house, "GET", "/models/loaded"))["models"]
        unloaded = await refused(house, "DELETE", f"/models/unload/{key}", None, 404)
        unknown = await refused(house, "DELETE", "/models/unload/who/is/that", None, 404)
    assert (first["status"], first["identifier"], first["ttl"]) == ("loaded", key, None)
    assert first["load_time_seconds"] > again["load_time_seconds"] == 0
    assert len(started) == 1
    assert gone == {"status": "unloaded", "model_key": key, "identifier": f"{key}:2"}
    assert [one["identifier"] for one in left] == [key]
    assert none == []
    assert "is not loaded" in unloaded["message"]
    assert unknown["type"] == "model_not_found"


async def test_the_time_to_live_ends_a_model(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        told = await ask(house, "POST", "/models/load", {"model_key": "chat", "ttl": 0.05})
        await house.until(lambda: not house.services.supervisor.loaded())
        lasting = await ask(house, "POST", "/models/load", {"model_key": "chat"})
        await ask(house, "POST", "/models/load", {"model_key": "chat", "ttl": 0.05})
        await house.until(lambda: not house.services.supervisor.loaded())
    assert told["ttl"] == 0.05
    assert lasting["ttl"] is None


WRONG: list[tuple[str, Json, str | None]] = [
    ("/models/load", {}, "model_key"),
    ("/models/load", {"model_key": ""}, "model_key"),
    ("/models/load", {"model_key": "chat", "ttl": 0}, "ttl"),
    ("/models/load", {"model_key": "chat", "ttl": "1h"}, "ttl"),
    ("/models/load", {"model_key": "chat", "context": 1}, None),
    ("/completions", {}, "prompt"),
    ("/chat/completions", {}, "messages"),
    ("/completions", {"prompt": "x", "stream": 1}, "stream"),
    ("/completions", {"prompt": "x", "model": 1}, "model"),
    ("/vision", {"prompt": "x"}, "image_path"),
    ("/vision", {"image_path": "x"}, "prompt"),
    ("/vision", {"prompt": "x", "image_path": "data:image/png;base64,aGk=", "model": "chat"}, "model"),
    ("/tools", {"prompt": "x"}, "tools"),
    ("/tools", {"tools": [ADD]}, "prompt"),
    ("/tools", {"prompt": "x", "messages": HELLO, "tools": [ADD]}, "messages"),
    ("/tools", {"prompt": "x", "tools": [ADD, ADD]}, "tools"),
]


async def test_what_is_wrong_is_named_and_no_model_starts_for_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        told = [(await refused(house, "POST", path, body, 400)).get("param") for path, body, _ in WRONG]
        assert house.journal("start") == []
    assert told == [param for *_, param in WRONG]


async def test_who_may_not_manage_loads_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=Door(rate_limits=NO_LIMITS, allow_management="never")) as house:
        await refused(house, "POST", "/models/load", {"model_key": "chat"}, 403)
        await refused(house, "DELETE", "/models/unload/chat", None, 403)
        assert house.journal("start") == []


async def test_a_completion_has_its_text_and_the_defaults(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        told = await ask(house, "POST", "/completions", {"prompt": "Once"})
        await ask(house, "POST", "/completions", {"prompt": "Once", "temperature": 0, "max_tokens": 3, "top_p": None})
        default, own = [one["body"] for one in house.journal("body")]
    assert told["text"] == "t0 t1 t2 t3 t4 "
    assert told["model"] == "chat"
    assert (default["temperature"], default["max_tokens"], default["prompt"]) == (0.7, 512, "Once")
    assert (own["temperature"], own["max_tokens"]) == (0, 3)
    assert "top_p" not in own


async def test_each_chunk_of_a_completion_has_its_text(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        chunks = await streamed(house, "/completions", {"prompt": "Once", "stream_options": {"include_usage": True}})
    assert "".join(one["text"] for one in chunks) == "t0 t1 t2 t3 t4 "
    assert chunks[-1]["usage"]["total_tokens"] == 8


async def test_a_chat_is_openais(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        whole = await ask(house, "POST", "/chat/completions", {"messages": HELLO, "max_completion_tokens": 9})
        chunks = await streamed(house, "/chat/completions", {"messages": HELLO})
        asked = house.journal("body")[0]["body"]
    assert whole["choices"][0]["message"]["content"] == "t0 t1 t2 t3 t4 "
    assert "".join(one["choices"][0]["delta"]["content"] for one in chunks) == "t0 t1 t2 t3 t4 "
    assert (asked["temperature"], asked["max_completion_tokens"], asked.get("max_tokens")) == (0.7, 9, None)


async def test_a_stream_that_breaks_off_ends_with_an_error(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        body = {"prompt": "Once", "stream": True, "fake": {"tokens": 1, "then": "stop"}}
        async with house.post(ROOT + "/completions", body) as response:
            got = await until_cut(response)
        failed = await refused(house, "POST", "/completions", {"prompt": "x", "fake": {"status": 500}}, 500)
    *_, last = got.decode().rstrip("\n").split("\n\n")
    assert last.startswith("event: error\ndata: ")
    assert "broke off" in last
    assert failed["type"] == "internal_error"


async def test_tools_are_shown_to_the_model_and_its_calls_to_the_client(tmp_path: Path) -> None:
    async with open_house(tmp_path, program=scripted(CALL)) as house:
        told = await ask(house, "POST", "/tools", {"prompt": "Calculate 5 + 10", "tools": [ADD]})
    assert told["text"] == ""
    assert told["tool_calls"] == [{"id": "123456789", "name": "add", "arguments": {"a": 5, "b": 10}}]
    assert told["choices"][0]["message"]["tool_calls"] == [CALL]
    assert told["choices"][0]["finish_reason"] == "tool_calls"


def scripted(call: Json) -> tuple[str, ...]:
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    body = json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]})
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return ("scripted_llama.py", json.dumps([head + body]))


async def test_the_talk_goes_on_with_what_a_call_gave(tmp_path: Path) -> None:
    talk = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "123456789", "content": "15"},
    ]
    async with open_house(tmp_path) as house:
        told = await ask(house, "POST", "/tools", {"messages": talk, "tools": [ADD]})
        (asked,) = house.journal("body")
    assert (told["text"], told["tool_calls"]) == ("t0 t1 t2 t3 t4 ", [])
    assert asked["body"]["messages"] == talk
    function = asked["body"]["tools"][0]["function"]
    assert function["parameters"]["required"] == ["a", "b"]
    assert asked["body"]["max_tokens"] == 512


def with_eyes(folder: Path) -> None:
    """Give the model `eyes` a projector, which makes it one that sees."""
    write_model(folder / "models" / "eyes" / "eyes.gguf")
    write_projector(folder / "models" / "eyes" / "mmproj-eyes.gguf")


async def test_an_image_of_an_allowed_folder_is_shown_to_the_model_that_sees(tmp_path: Path) -> None:
    with_eyes(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "one.png").write_bytes(PNG)
    async with open_house(tmp_path, wrapper=WrapperSettings(image_folders=(pictures,))) as house:
        told = await ask(house, "POST", "/vision", {"prompt": "What?", "image_path": str(pictures / "one.png")})
        sent = await ask(house, "POST", "/vision", {"prompt": "What?", "image_path": "data:image/png;base64,aGk="})
        outside = {"prompt": "What?", "image_path": str(tmp_path / "journal")}
        forbidden = await refused(house, "POST", "/vision", outside, 403)
        parts = [one["parts"][0] for one in house.journal("parts")]
    assert told["model"] == sent["model"] == "eyes"
    assert told["text"] == "t0 t1 t2 t3 t4 "
    assert [part[0] for part in parts] == [{"type": "text", "text": "What?"}] * 2
    assert [part[1]["image_url"]["url"][:30] for part in parts] == [
        "data:image/png;base64,iVBORw0K",
        "data:image/png;base64,aGk=",
    ]
    assert forbidden["param"] == "image_path"
