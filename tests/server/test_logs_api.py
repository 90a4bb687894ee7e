"""GET /v1/models/{id}/logs: the tail, and following it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door

EVENTS = {"Accept": "text/event-stream"}


def output_of(house: House) -> Any:
    return house.services.supervisor.output(house.services.catalog.find("chat"))


def logs(house: House, query: str = "", **options: Any) -> Any:
    return house.client.get(f"{house.url}/v1/models/chat/logs{query}", **options)


async def line(response: aiohttp.ClientResponse) -> str:
    async with asyncio.timeout(5):
        return (await response.content.readline()).decode()


async def test_the_tail_is_plain_text_or_events(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        output_of(house).add([b"one", b"\x1b[31mtwo\r", b"\xffthree"])
        async with logs(house) as response:
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert await response.text() == "one\n [31mtwo\n\ufffdthree\n"
        async with logs(house, "?tail=1") as response:
            assert await response.text() == "\ufffdthree\n"
        async with logs(house, "?tail=0") as response:
            assert await response.text() == ""
        async with logs(house, "?tail=2", headers=EVENTS) as response:
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert await response.text() == "data:  [31mtwo\n\ndata: \ufffdthree\n\n"
        output_of(house).add([b"x"] * 150)
        async with logs(house) as response:
            assert (await response.text()).count("\n") == 100


async def test_a_model_that_never_ran_has_an_empty_log_and_an_unknown_one_has_none(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with logs(house) as response:
            assert (response.status, await response.text()) == (200, "")
        async with house.client.get(house.url + "/v1/models/none/logs") as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("query", "param"),
    [(f"?tail={wrong}", "tail") for wrong in ("-1", "x", "", "10001", "9" * 5000, "\u0663")]
    + [("?follow=7", "follow")],
)
async def test_what_is_wrong_in_the_query_is_named(tmp_path: Path, query: str, param: str) -> None:
    async with open_house(tmp_path) as house, logs(house, query) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param


async def test_logs_are_for_those_who_manage_models(tmp_path: Path) -> None:
    unmanaged = Door(rate_limits=NO_LIMITS, allow_management="never")
    async with open_house(tmp_path, door=unmanaged) as house:
        output_of(house).add([b"secret"])
        for query in ("", "?follow=true"):
            async with logs(house, query) as response:
                assert response.status == 403
                assert "secret" not in await response.text()


async def test_what_a_dead_process_said_last_can_be_read(tmp_path: Path) -> None:
    flags = ("--fake-print", "no such tensor", "--fake-exit", "3")
    async with open_house(tmp_path, flags=flags) as house:
        async with house.chat() as response:
            assert response.status == 503
        async with logs(house) as response:
            assert await response.text() == "loading model\nno such tensor\n"


async def test_a_follower_hears_what_is_printed_across_lives(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, logs(house, "?follow=true") as response:
        assert response.status == 200
        for life in range(2):
            async with house.chat(fake={"print": f"life {life}"}) as answer:
                assert answer.status == 200
            assert await line(response) == "loading model\n"
            assert "listening" in await line(response)
            assert await line(response) == f"life {life}\n"
            async with house.post("/v1/models/chat/stop", {}) as stopped:
                assert stopped.status == 200


async def test_events_are_kept_alive_and_tell_what_is_lost(tmp_path: Path) -> None:
    often = {"sse_keepalive_seconds": 0.05}
    async with open_house(tmp_path, server=often) as house, logs(house, "?follow=true", headers=EVENTS) as response:
        assert await line(response) == ": keep-alive\n"
        output_of(house).add([b"%d" % number for number in range(10_002)])
        said = [await line(response) for _ in range(20)]
        assert said[said.index("event: lost\n") :][:5] == ["event: lost\n", "data: 2\n", "\n", "data: 2\n", "\n"]


async def test_a_slow_follower_of_plain_text_reads_how_much_it_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, logs(house, "?follow=1&tail=3") as response:
        output_of(house).add([b"%d" % number for number in range(10_005)])
        assert await line(response) == "[5 lines are lost]\n"
        assert await line(response) == "5\n"


async def test_a_follower_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with logs(house, "?follow=true"):
            await house.until(lambda: len(output_of(house)._followers) == 1)
        await house.until(lambda: not output_of(house)._followers)
        assert await house.services.drain.idle(1)


async def test_a_follower_that_reads_nothing_is_dropped(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"write_stall_seconds": 0.3}) as house, logs(house, "?follow=1") as response:
        assert response.connection
        response.connection.transport.pause_reading()
        await house.until(lambda: bool(output_of(house)._followers))
        async with asyncio.timeout(10):
            while output_of(house)._followers:
                output_of(house).add([b"x" * 8000] * 20)
                await asyncio.sleep(0.01)
        assert await house.services.drain.idle(1)


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_followers_do_not_hold_up_the_end_and_are_ended_properly(tmp_path: Path, headers: dict[str, str]) -> None:
    async with open_house(tmp_path) as house, logs(house, "?follow=true", headers=headers) as response:
        output_of(house).add([b"last"])
        assert "last" in await line(response)
        house.services.drain.begin()
        assert await house.services.drain.idle(1)
        assert (await response.text()).strip() == ""  # raises if the end is not clean
        async with logs(house, "?follow=true") as late:
            assert late.status == 503


async def test_a_follower_is_a_stream_for_the_limits(tmp_path: Path) -> None:
    one = Door(rate_limits=NO_LIMITS.model_copy(update={"streaming_connections": 1}))
    async with open_house(tmp_path, door=one) as house, logs(house, "?follow=true") as first:
        assert first.status == 200
        async with logs(house, "?follow=true") as second:
            assert second.status == 429
        async with house.client.head(f"{house.url}/v1/models/chat/logs?follow=true") as head:
            assert head.status == 200


FEWER = {
    "the key is gone": [{"key": "other"}],
    "the key sees other models": [{"key": "k", "models": ["other"]}],
    "the door lets nobody manage": [{"key": "k"}],
}


@pytest.mark.parametrize("change", FEWER)
async def test_a_follower_hears_no_more_when_it_may_no_longer(tmp_path: Path, change: str) -> None:
    async with (
        open_house(tmp_path, door=keyed([{"key": "k"}])) as house,
        logs(house, "?follow=true", headers={"Authorization": "Bearer k"}) as response,
    ):
        output_of(house).add([b"one"])
        assert await line(response) == "one\n"
        management = "never" if "manage" in change else "auto"
        for view in house.services.views:
            view.configure(keyed(FEWER[change], allow_management=management))
        output_of(house).add([b"secret"])
        assert await line(response) == ""


def keyed(keys: list[dict[str, Any]], **more: Any) -> Door:
    return Door.model_validate({"api_keys": keys, "rate_limits": NO_LIMITS, **more})


@pytest.mark.parametrize("action", ["start", "stop"])
async def test_actions_asked_in_the_wrong_way_are_405(tmp_path: Path, action: str) -> None:
    async with open_house(tmp_path) as house:
        async with house.client.get(f"{house.url}/v1/models/chat/{action}") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
        async with house.post("/v1/models/chat/logs", {}) as response:
            assert response.status == 405
            assert response.headers["Allow"] == "GET, HEAD"
