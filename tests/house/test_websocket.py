"""The websocket of the whole program, with the demo model, until the server stops."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import websockets
from websockets.exceptions import ConnectionClosed

from tests.house.conftest import OpenHouse, start, with_fakes


def place(url: str) -> str:
    return url.replace("http:", "ws:") + "/v1/ws"


async def answer_to(socket: Any, **chat: Any) -> list[dict[str, Any]]:
    """Ask, and collect the messages of the answer."""
    await socket.send(json.dumps({"type": "chat_message", **chat}))
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not messages or messages[-1]["type"] not in ("chat_end", "error"):
            messages.append(json.loads(await socket.recv()))
    return messages


async def test_demo_chat_answers_through_both_doors_and_its_log_can_be_read(open_house: OpenHouse) -> None:
    async with open_house() as house:
        for url in house.urls.values():
            async with websockets.connect(place(url)) as socket:
                options = {"temperature": 0, "chat_template_kwargs": {"enable_thinking": False}}
                question = "What is the capital of France?"
                start_, *deltas, end = await answer_to(socket, model="demo-chat", message=question, options=options)
        assert (start_["type"], start_["model"]) == ("chat_start", "demo-chat")
        assert {delta["type"] for delta in deltas} == {"chat_delta"}
        assert len(deltas) > 1
        assert "Paris" in "".join(delta.get("content", "") for delta in deltas)
        assert end["finish_reason"] == "stop"
        usage = end["usage"]
        assert 0 < usage["completion_tokens"] < usage["total_tokens"]
        async with aiohttp.ClientSession() as http, http.get(f"{house.url}/v1/models/demo-chat/logs") as response:
            assert response.status == 200
            assert "\n" in await response.text()


async def test_demo_chat_thinks_aloud_and_refuses_what_is_too_long(open_house: OpenHouse) -> None:
    async with open_house() as house, websockets.connect(place(house.url)) as socket:
        messages = await answer_to(socket, message="What is 2+2?", options={"temperature": 0})
        assert any("reasoning_content" in message for message in messages)
        refused = (await answer_to(socket, message="word " * 20_000))[-1]
        assert refused["error"]["code"] == "context_length_exceeded"


async def test_a_server_that_stops_lets_chats_end_tells_so_and_closes_with_1001(
    tmp_path: Path, fake_llama: Path
) -> None:
    house = await start(tmp_path, with_fakes(tmp_path, fake_llama, {"a": []}))
    async with websockets.connect(place(house.url)) as idle, websockets.connect(place(house.url)) as busy:
        await idle.send('{"type": "subscribe", "events": ["server.*"]}')
        assert json.loads(await idle.recv())["type"] == "subscribed"
        fake = {"tokens": 20, "delay": 0.05}
        chat = {"type": "chat_message", "model": "a", "message": "hello", "options": {"fake": fake}}
        await busy.send(json.dumps(chat))
        await house.journal("a").wait_for("token")
        house.process.terminate()
        said: dict[str, list[str]] = {"idle": [], "busy": []}
        codes: dict[str, int | None] = {}
        for name, socket in (("idle", idle), ("busy", busy)):
            try:
                async with asyncio.timeout(10):
                    while True:
                        message = json.loads(await socket.recv())
                        said[name].append(message.get("event", message["type"]))
            except ConnectionClosed:
                codes[name] = socket.close_code
    assert said["idle"] == ["server.stopping"]
    assert said["busy"] == ["chat_start", *["chat_delta"] * 20, "chat_end"]
    assert codes == {"idle": 1001, "busy": 1001}
    assert await asyncio.wait_for(house.process.wait(), 10) == 0


async def test_a_second_signal_ends_chats_and_followers_at_once(tmp_path: Path, fake_llama: Path) -> None:
    house = await start(tmp_path, with_fakes(tmp_path, fake_llama, {"a": []}))
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{house.url}/v1/models/a/logs?follow=true") as log,
        http.ws_connect(place(house.url)) as socket,
    ):
        fake = {"tokens": 10_000, "delay": 0.05}
        await socket.send_json({"type": "chat_message", "model": "a", "message": "hi", "options": {"fake": fake}})
        await house.journal("a").wait_for("token")
        house.process.terminate()
        assert "loading model" in await log.text()  # raises if the end is not clean
        house.process.terminate()
        async with asyncio.timeout(10):
            types = [json.loads(frame.data)["type"] async for frame in socket]
        assert types[-1] == "error"
        assert socket.close_code == 1001
    assert await asyncio.wait_for(house.process.wait(), 10) == 0
