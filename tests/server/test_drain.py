"""The end of the server, as those who are being served see it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from doors import open_house

from llamarunner.server.drain import Drain

LONG = {"tokens": 1000, "delay": 0.01}
CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


async def test_while_draining_nothing_new_begins_and_what_runs_goes_on(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, asyncio.TaskGroup() as group:
        response = await house.chat(stream=True, fake={"tokens": 30, "delay": 0.01})
        running = group.create_task(response.text())
        house.services.drain.begin()
        async with house.chat() as refused:
            assert refused.status == 503
            assert (await refused.json())["error"]["message"] == "The server is shutting down."
            assert refused.headers["Connection"] == "close"
            assert int(refused.headers["Retry-After"]) > 0
        async with house.client.get(house.url + "/v1/models") as listed:
            assert listed.status == 200
        assert await house.services.drain.idle(5)
        assert (await running).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "before"),
    [("/v1/chat/completions", ""), ("/v1/messages", "event: error\n"), ("/v1/responses", "event: error\n")],
)
async def test_f40_streams_end_cleanly_with_an_error_when_time_is_up(tmp_path: Path, path: str, before: str) -> None:
    async with open_house(tmp_path) as house:
        responses = [
            await house.post(path, {**CHAT, "input": "hello", "stream": True, "fake": LONG}) for _ in range(20)
        ]
        drain = house.services.drain
        drain.begin()
        assert not await drain.idle(0.05)
        assert len(drain) == 20
        started = time.monotonic()
        drain.expire()
        assert await drain.idle(1)
        for response in responses:
            text = await response.text()  # raises if the end is not clean
            begin, _, last = text.removesuffix("\n\n").rpartition("\n\n")[2].partition("data: ")
            assert begin == before
            assert "shutting down" in json.dumps(json.loads(last))
        assert time.monotonic() - started < 1
        assert house.leases() == 0


async def test_f40_an_answer_in_one_piece_becomes_503(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, asyncio.TaskGroup() as group:
        asking = group.create_task(house.chat(fake={"prefill": 30}).__aenter__())
        await house.wait_for("request")
        house.services.drain.begin()
        house.services.drain.expire()
        response = await asking
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "service_unavailable"
        await house.wait_for("hangup")


async def test_those_who_wait_for_a_model_are_told_too(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-never",)) as house, asyncio.TaskGroup() as group:
        asking = group.create_task(house.chat(stream=True).__aenter__())
        await house.until(lambda: len(house.services.drain) == 1)
        house.services.drain.expire()
        assert (await asking).status == 503


async def test_an_idle_house_drains_at_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        assert await house.services.drain.idle(0)
        async with house.chat() as response:
            assert response.status == 200
        house.services.drain.begin()
        assert await house.services.drain.idle(0)


async def test_guests_are_asked_to_leave_when_the_server_stops_and_waited_for() -> None:
    drain = Drain()
    asked = asyncio.Event()
    with drain.hosting(asked.set):
        assert not await drain.idle(0)
        drain.expire()
        assert not asked.is_set(), "only exchanges expire"
        drain.begin()
        assert asked.is_set()
        assert not await drain.idle(0)
    assert await drain.idle(0)


async def test_a_guest_that_comes_too_late_is_asked_at_once() -> None:
    drain, asked = Drain(), asyncio.Event()
    drain.begin()
    with drain.hosting(asked.set):
        assert asked.is_set()
    assert await drain.idle(0)
