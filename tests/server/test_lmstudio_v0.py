"""REST v0 at the door: streams that pass at once, clients that leave, models that break off, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doors import House, open_house

from llamarunner.events import Event, RequestFinished

HELLO: list[dict[str, str]] = [{"role": "user", "content": "hello"}]
CHAT = "/api/v0/chat/completions"
TIMINGS = {
    "cache_n": 2,
    "prompt_n": 4,
    "prompt_ms": 111.0,
    "predicted_n": 5,
    "predicted_ms": 954.0,
    "predicted_per_second": 51.5,
}
END = {"finish_reason": "stop", "timings": TIMINGS, "__verbose": {"stop_type": "eos"}}


def ask(house: House, **document: Any) -> Any:
    return house.post(CHAT, {"model": "chat", "messages": HELLO, **document})


def chunks(said: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in said.split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def all_of(response: aiohttp.ClientResponse) -> tuple[str, bool]:
    """What comes, and whether it ends without its proper end."""
    said = b""
    try:
        async for piece in response.content.iter_any():
            said += piece
    except aiohttp.ClientPayloadError:
        return said.decode(), True
    return said.decode(), False


async def test_a_chunk_is_told_while_the_model_goes_on_and_a_client_that_leaves_ends_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with ask(house, stream=True, fake={"tokens": 1000, "delay": 0.02}) as response:
            assert response.content_type == "text/event-stream"
            first = await response.content.readuntil(b"\n\n")
            assert b't0 "' in first
            assert house.journal("end") == []
        await house.wait_for("hangup")
        await house.until(lambda: house.leases() == 0)


async def test_silence_is_filled_but_never_inside_an_event(tmp_path: Path) -> None:
    often = {"sse_keepalive_seconds": 0.05}
    async with (
        open_house(tmp_path, server=often) as house,
        ask(house, stream=True, fake={"tokens": 3, "delay": 0.2, "end": END}) as response,
    ):
        said = await response.text()
    assert said.count(": keep-alive\n\n") >= 2
    events = [event for event in said.split("\n\n") if not event.startswith(":")]
    assert [event[:6] for event in events] == ["data: "] * 5 + [""]
    assert chunks(said)[-1]["stats"]["stop_reason"] == "eosFound"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_an_answer_was_is_recorded(tmp_path: Path, stream: bool) -> None:
    told: list[RequestFinished] = []

    def hear(event: Event) -> None:
        if isinstance(event, RequestFinished):
            told.append(event)

    usage = {"usage": {"prompt_tokens": 6, "completion_tokens": 5}}
    async with open_house(tmp_path) as house:
        house.services.bus.listen(hear)
        async with ask(house, stream=stream, fake={"end": {**END, **usage}}) as response:
            assert response.status == 200
            await response.read()
        await house.until(lambda: len(told) == 1)
    assert (told[0].path, told[0].model_id, told[0].stream) == (CHAT, "chat", stream)
    assert (told[0].prompt_tokens, told[0].completion_tokens) == (6, 5)
    assert (told[0].first_token_seconds is not None) is stream


@pytest.mark.parametrize("then", ["reset", "stop", "die"])
async def test_a_stream_that_breaks_off_is_told_and_cut(tmp_path: Path, then: str) -> None:
    async with open_house(tmp_path) as house, ask(house, stream=True, fake={"tokens": 2, "then": then}) as response:
        said, cut = await all_of(response)
    *before, last = chunks(said)
    assert (cut, len(before)) == (True, 2)
    assert last["error"]["message"] == last["message"]
    assert "[DONE]" not in said


async def test_a_model_that_refuses_is_refused_before_the_stream(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, ask(house, stream=True, fake={"status": 400}) as response:
        assert (response.status, response.content_type) == (400, "application/json")
        assert (await response.json())["error"]["message"] == "as you wish"


async def test_the_model_is_asked_for_the_reason_and_the_client_gets_none_of_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with ask(house, max_tokens=-1, ttl=5, fake={"end": END}) as response:
            answer = await response.json()
        (asked,) = house.journal("body")
        assert asked["body"]["verbose"] is True
        assert (asked["path"], asked["body"]["max_tokens"]) == ("/v1/chat/completions", -1)
        assert answer.keys() & {"timings", "__verbose"} == set()
        assert answer["model_info"]["context_length"] == 4096


@pytest.mark.parametrize("stream", ["yes", 1], ids=repr)
async def test_a_stream_is_asked_for_with_true(tmp_path: Path, stream: Any) -> None:
    async with open_house(tmp_path) as house, ask(house, stream=stream) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "stream")


async def test_only_its_own_door_has_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.client.post(house.urls["ollama"] + CHAT, json={}) as response:
        assert response.status == 404
