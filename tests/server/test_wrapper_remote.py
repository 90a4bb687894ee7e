"""The wrapper API in front of another LM Studio: a real one's door, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house
from pydantic import SecretStr

from llamarunner.config import NO_LIMITS, ApiKey, Door, WrapperSettings
from llamarunner.server.wrapper_remote import refusal
from tests.server.test_keys import bearing
from tests.server.test_wrapper_api import ADD, HELLO, MODELS, ROOT, ask, refused, streamed, until_cut

Json = dict[str, Any]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LISTED = json.dumps({"models": [{"type": "llm", "key": "far", "loaded_instances": [], "capabilities": {}}]})
TOKEN = "sk-lm-abcdefgh:12345678901234567890"


@asynccontextmanager
async def in_front_of(url: str, folder: Path, door: Door | None = None, **more: Any) -> AsyncIterator[House]:
    """A house without models of its own, whose wrapper leads to another address."""
    settings = WrapperSettings(lmstudio_host=url, **more)
    async with open_house(folder / "near", models={}, door=door, wrapper=settings) as near:
        yield near


@asynccontextmanager
async def both(folder: Path, door: Door | None = None, **more: Any) -> AsyncIterator[tuple[House, House]]:
    """A house that has the models, and one in front of it."""
    async with (
        open_house(folder / "far", models=MODELS, door=door) as far,
        in_front_of(far.url.removeprefix("http://"), folder, **more) as near,
    ):
        yield far, near


@asynccontextmanager
async def server(answer: Handler) -> AsyncIterator[str]:
    """A server that answers each connection in its own way; its host and port."""
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def saying(*told: str, last: str = "") -> Handler:
    """Answer the first request with the first text as JSON, and so on; the last one with `last` as it stands."""
    rest = list(told)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = rest.pop(0) if rest else None
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body or '')}\r\n\r\n"
        writer.write((last if body is None else head + body).encode())
        await writer.drain()
        writer.close()

    return answer


async def test_models_of_another_are_listed_loaded_and_unloaded(tmp_path: Path) -> None:
    async with both(tmp_path) as (far, near):
        healthy = await ask(near, "GET", "/health")
        own = await ask(far, "GET", "/models")
        assert (await ask(near, "GET", "/models")) == own
        loaded, again = await asyncio.gather(
            *(ask(near, "POST", "/models/load", {"model_key": key}) for key in ("CHAT", "chat"))
        )
        assert (await ask(near, "GET", "/models/loaded")) == (await ask(far, "GET", "/models/loaded"))
        (one,) = (await ask(near, "GET", "/models/loaded?model_type=llm"))["models"]
        gone = await ask(near, "DELETE", "/models/unload/chat")
        await refused(near, "DELETE", "/models/unload/chat", None, 404)
        unknown = await refused(near, "POST", "/models/load", {"model_key": "nobody"}, 404)
        assert len(far.journal("start")) == 1
    assert (healthy["backend"], healthy["models_available"]) == ("lmstudio", 2)
    assert (loaded["model_key"], loaded["identifier"]) == ("chat", "chat")
    assert min(loaded["load_time_seconds"], again["load_time_seconds"]) == 0
    assert one["identifier"] == "chat"
    assert gone == {"status": "unloaded", "model_key": "chat", "identifier": "chat"}
    assert "chat, embed" in unknown["message"]


@pytest.mark.parametrize("key", ["chat", "embed"])
async def test_a_time_to_live_is_set_by_the_request_that_loads(tmp_path: Path, key: str) -> None:
    async with both(tmp_path) as (far, near):
        told = await ask(near, "POST", "/models/load", {"model_key": key, "ttl": 0.05})
        await far.until(lambda: not far.services.supervisor.loaded())
    assert (told["identifier"], told["ttl"]) == (key, 0.05)


async def test_another_answers_whole_and_streamed(tmp_path: Path) -> None:
    async with both(tmp_path) as (far, near):
        text = await ask(near, "POST", "/completions", {"prompt": "Once"})
        chat = await ask(near, "POST", "/chat/completions", {"messages": HELLO, "model": "chat"})
        tools = await ask(near, "POST", "/tools", {"prompt": "Add", "tools": [ADD]})
        chunks = await streamed(near, "/completions", {"prompt": "Once"})
        bodies = [one["body"] for one in far.journal("body")]
        wrong = await refused(near, "POST", "/chat/completions", {"messages": "hello", "model": "chat"}, 400)
    assert text["text"] == tools["text"] == "".join(one["text"] for one in chunks) == "t0 t1 t2 t3 t4 "
    assert (text["model"], chat["model"]) == ("chat", "chat")
    assert all((one["temperature"], one["max_tokens"]) == (0.7, 512) for one in bodies)
    assert "messages" in wrong["message"]


async def test_a_stream_is_passed_on_as_it_comes_and_ends_with_its_client(tmp_path: Path) -> None:
    async with both(tmp_path) as (far, near):
        body = {"prompt": "Once", "stream": True, "fake": {"tokens": 1, "then": "hang"}}
        async with near.post(ROOT + "/completions", body) as response:
            assert b'"text":"t0 "' in await response.content.readuntil(b"\n\n")
        await far.wait_for("hangup")


async def test_a_token_is_sent_and_a_wrong_one_is_said_to_be(tmp_path: Path) -> None:
    door = Door(rate_limits=NO_LIMITS, api_keys=(SecretStr(TOKEN),))
    async with both(tmp_path, door=door) as (far, near):
        refusal = await refused(near, "GET", "/models", None, 502)
        token = SecretStr(TOKEN)
        async with in_front_of(far.url, tmp_path / "more", lmstudio_token=token) as other:
            assert len((await ask(other, "GET", "/models"))["models"]) == 2
    assert "wrapper.lmstudio_token" in refusal["message"]
    assert TOKEN not in refusal["message"]


async def test_models_that_a_door_or_a_key_hides_stay_hidden(tmp_path: Path) -> None:
    key = ApiKey(key=SecretStr("k"), models=("embed",))
    door = Door(rate_limits=NO_LIMITS, api_keys=(key,), allow_management="always")
    async with open_house(tmp_path / "far", models=MODELS) as far, in_front_of(far.url, tmp_path, door) as near:
        async with near.client.get(f"{near.url}{ROOT}/models", headers=bearing("k")) as response:
            assert [one["model_key"] for one in (await response.json())["models"]] == ["embed"]
        for path, body in (("/chat/completions", {"messages": HELLO}), ("/models/load", {"model_key": "chat"})):
            asked = {**body, "model": "chat"} if "messages" in body else body
            async with near.client.post(near.url + ROOT + path, json=asked, headers=bearing("k")) as response:
                assert response.status == 404, await response.text()
        assert far.journal("start") == []


async def test_one_that_is_down_is_told_as_such(tmp_path: Path) -> None:
    async with server(saying()) as gone:
        pass
    async with in_front_of(gone, tmp_path) as near:
        told = await ask(near, "GET", "/health", status=503)
        failed = await refused(near, "POST", "/completions", {"prompt": "x"}, 502)
    assert (told["status"], told["backend"], told["models_available"]) == ("unhealthy", "lmstudio", 0)
    assert (
        told["message"]
        == failed["message"]
        == ("LM Studio cannot be asked. The host cannot be reached, or nothing listens there.")
    )


async def test_one_that_is_silent_is_given_up(tmp_path: Path) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with server(silence) as url, in_front_of(url, tmp_path, answer_seconds=0.05) as near:
        told = await ask(near, "GET", "/health", status=503)
        failed = await refused(near, "POST", "/completions", {"prompt": "x"}, 504)
    assert told["message"] == failed["message"] == "LM Studio gave no answer within 0.05 seconds."


async def test_it_never_asks_itself(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        here = WrapperSettings(lmstudio_host=house.url)
        house.services.configure(house.services.settings.model_copy(update={"wrapper": here}))
        failed = await refused(house, "GET", "/models", None, 502)
    assert "this server itself" in failed["message"]


GARBAGE = {
    "no JSON": ("<html>", "is no JSON"),
    "another JSON": ("[1]", "did not tell its models"),
    "lies": ('{"models": 3}', "did not tell its models"),
    "an unknown path": ('{"error": "Unexpected endpoint or method. (GET /api/v1/models)"}', "did not tell its models"),
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_nonsense_is_said_to_be(tmp_path: Path, case: str) -> None:
    said, words = GARBAGE[case]
    async with server(saying(said, said)) as url, in_front_of(url, tmp_path) as near:
        assert words in (await refused(near, "GET", "/models", None, 502))["message"]


async def test_an_older_one_tells_its_models_in_its_own_way(tmp_path: Path) -> None:
    item = {"id": "old", "type": "vlm", "state": "loaded", "loaded_context_length": 9, "arch": "x", "quantization": "Q"}
    older = json.dumps({"data": [item, {"id": "e", "type": "embeddings"}]})
    async with server(saying('{"error": "Unexpected endpoint"}', older)) as url, in_front_of(url, tmp_path) as near:
        models = (await ask(near, "GET", "/models/loaded"))["models"]
    assert [(one["identifier"], one["vision"], one["context_length"]) for one in models] == [("old", True, 9)]


async def test_a_load_that_fails_is_told_in_its_words(tmp_path: Path) -> None:
    said = saying(LISTED, '{"error": {"message": "not enough memory"}}')
    async with server(said) as url, in_front_of(url, tmp_path) as near:
        failed = await refused(near, "POST", "/models/load", {"model_key": "far"}, 502)
    assert failed["message"] == "LM Studio did not load the model: not enough memory."


async def test_a_stream_that_breaks_off_does_not_end_well(tmp_path: Path) -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = 'data: {"choices": [{"index": 0, "text": "a"}]}\n\n'
    async with server(saying(last=f"{head}{len(event):x}\r\n{event}\r\n")) as url, in_front_of(url, tmp_path) as near:
        body = {"prompt": "Once", "model": "far", "stream": True}
        async with near.post(ROOT + "/completions", body) as response:
            got = await until_cut(response)
    assert b'"text":"a"' in got
    assert b"LM Studio broke off its answer." in got
    assert b"[DONE]" not in got


@pytest.mark.parametrize(
    ("status", "became"),
    [
        (302, 502),
        (400, 400),
        (401, 502),
        (403, 502),
        (404, 404),
        (413, 413),
        (429, 503),
        (500, 502),
        (503, 503),
        (504, 504),
    ],
)
def test_what_another_status_means(status: int, became: int) -> None:
    error = refusal(status, b'{"error": {"message": "because"}}')
    assert error.status == became
    assert "because" in error.message
    assert str(status) in refusal(status, b"\xff").message
