"""How LM Studio's SDKs find the server, and how they come in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType
from doors import open_house
from pydantic import SecretStr
from sdk_talking import HELLO, LONG, Json, asking, dialled, stack

from llamarunner.config import NO_LIMITS, ApiKey, Door, RateLimits
from llamarunner.server import guards, sdk_api

TOKEN = ApiKey(key=SecretStr("sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"), models=("chat",))
HALVES = {"authVersion": 1, "clientIdentifier": "abcdefgh", "clientPasskey": "ABCDEFGHIJKLMNOPQRST"}
LOCKED = Door(rate_limits=NO_LIMITS, api_keys=(TOKEN,))


async def test_it_says_that_it_is_what_the_sdks_look_for(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=LOCKED) as house:
        async with house.client.get(house.url + "/lmstudio-greeting") as response:
            assert (response.status, await response.json()) == (200, {"lmstudio": True})
        async with house.client.get(house.url + "/lms-status") as response:
            assert await response.json() == {"package": "llamarunner", "version": "1.2.3"}
        async with house.client.get(house.urls["ollama"] + "/lmstudio-greeting") as response:
            assert response.status == 404


def test_the_guards_know_all_sockets() -> None:
    assert {f"/{name}" for name in sdk_api.NAMESPACES} == guards.SDK_PATHS


@pytest.mark.parametrize("namespace", sorted(sdk_api.NAMESPACES))
async def test_every_namespace_has_a_socket(tmp_path: Path, namespace: str) -> None:
    async with open_house(tmp_path) as house, dialled(house, namespace) as line:
        await line.send({"type": "keepAlive"})
        assert await line.next() == {"type": "keepAliveAck"}


async def test_it_is_a_websocket_or_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.client.get(house.url + "/llm") as response:
            assert response.status == 400
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with house.client.ws_connect(house.urls["ollama"].replace("http:", "ws:") + "/llm"):
                pass
        assert refused.value.status == 404


async def test_pages_of_strangers_stay_out(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with dialled(house, "llm", headers={"Origin": "https://evil.example"}):
                pass
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        ({"authVersion": 2, "clientIdentifier": "a", "clientPasskey": "b"}, "authVersion"),
        ({"authVersion": 1, "clientIdentifier": "", "clientPasskey": "b"}, "clientIdentifier"),
        ({"authVersion": 1, "clientPasskey": "b"}, "clientIdentifier"),
        ({"type": "rpcCall", "endpoint": "version", "callId": 1}, "authVersion"),
    ],
    ids=["version", "empty", "missing", "call"],
)
async def test_who_does_not_say_who_it_is_is_turned_away(tmp_path: Path, hello: Json, said: str) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm", None) as line:
        await line.send(hello)
        answer = await line.next()
        assert answer["success"] is False
        assert said in answer["error"]
        assert await line.closed() == 1008


async def test_who_sends_too_much_before_is_closed_out(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm", None) as line:
        await asyncio.sleep(0.05)  # the bytes of the handshake do not count
        await line.send({**HELLO, "more": "x" * 2 * sdk_api.HELLO_BYTES})
        assert await line.closed() == 1008


async def test_a_client_has_one_passkey_as_long_as_it_is_there(tmp_path: Path) -> None:
    other = {**HELLO, "clientPasskey": "another"}
    async with open_house(tmp_path) as house:
        async with dialled(house, "llm"), dialled(house, "files"), dialled(house, "llm", None) as line:
            await line.send(other)
            assert await line.next() == {
                "success": False,
                "error": 'Failed to validate client: Invalid client passkey for client "me"',
            }
        await house.until(lambda: not house.services.drain._guests)
        async with dialled(house, "llm", other):
            pass


async def test_the_halves_of_a_token_are_a_key(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=LOCKED, models={"chat": {}, "other": {}}) as house:
        async with dialled(house, "system", HALVES) as line:
            told = await line.rpc("listDownloadedModels")
            assert [one["modelKey"] for one in told["result"]] == ["chat"]
        headers = {"Authorization": f"Bearer {TOKEN.key.get_secret_value()}"}
        async with dialled(house, "system", HELLO, headers=headers) as line:
            assert len((await line.rpc("listDownloadedModels"))["result"]) == 1
        async with dialled(house, "system", None) as line:
            await line.send(HELLO)
            answer = await line.next()
            assert (answer["success"], await line.closed()) == (False, 1008)
            assert answer["error"].startswith("This door asks for an API token.")


@pytest.mark.parametrize(
    ("identifier", "headers"),
    [
        ("0b6fb1ee-5a4a-4c3c-9d7c-2f5f3f2c1a90", {}),
        ("guest:0b6fb1ee-5a4a-4c3c-9d7c-2f5f3f2c1a90", {}),
        ("abcdefgh", {"User-Agent": "python-httpx/0.28.1"}),
    ],
    ids=["1.5", "1.6", "1.6 with a token"],
)
async def test_the_client_for_python_is_told_errors_as_an_object(
    tmp_path: Path, identifier: str, headers: dict[str, str]
) -> None:
    async with open_house(tmp_path, door=LOCKED) as house, dialled(house, "llm", None, headers=headers) as line:
        await line.send({"authVersion": 1, "clientIdentifier": identifier, "clientPasskey": "x" * 20})
        error = (await line.next())["error"]
        assert error["rootTitle"] == error["title"]
        assert "API" in error["title"]


async def test_wrong_keys_are_guesses_and_few(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=LOCKED) as house:
        for number in range(12):
            async with dialled(house, "system", None) as line:
                await line.send({**HALVES, "clientPasskey": f"{number:020}"})
                last = await line.next()
    assert "Too many wrong API keys" in last["error"]


async def test_a_key_that_is_taken_back_ends_the_socket(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=LOCKED) as house, dialled(house, "system", HALVES) as line:
        assert "result" in await line.rpc("version")
        view = next(view for view in house.services.views if view.name == "lmstudio")
        view.configure(Door(rate_limits=NO_LIMITS, api_keys=(SecretStr("another"),)))
        await line.send(line.call("version"))
        assert await line.closed() == 1008


async def test_limits_that_change_hold_for_open_sockets(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        view = next(view for view in house.services.views if view.name == "lmstudio")
        view.configure(Door(rate_limits=RateLimits(requests_per_minute=1)))
        _, end = await line.stream("predict", asking())
        assert end["error"]["errorData"]["code"] == "rate_limit_exceeded"


async def test_sockets_have_a_limit_of_their_own(tmp_path: Path) -> None:
    limits = RateLimits(concurrent_requests=1, requests_per_minute=None)
    async with open_house(tmp_path, door=Door(rate_limits=limits)) as house, asyncio.TaskGroup() as group:
        opened: list[asyncio.Event] = []
        over = asyncio.Event()

        async def hold(ready: asyncio.Event) -> None:
            async with dialled(house, "system"):
                ready.set()
                await over.wait()

        for _ in sdk_api.NAMESPACES:
            opened.append(asyncio.Event())
            group.create_task(hold(opened[-1]))
            await opened[-1].wait()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with dialled(house, "system"):
                pass
        over.set()
    assert refused.value.status == 429


async def test_the_server_waits_for_predictions_and_then_says_goodbye(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line, dialled(house, "system") as idle:
        await line.load("chat")
        alive = await idle.open("alive")
        channel = await line.open("predict", asking('{"tokens": 20, "delay": 0.02}'))
        await line.packet(channel, "fragment")
        house.services.drain.begin()
        assert (await idle.until_end(alive))[1]["type"] == "channelClose"
        assert await idle.closed() == 1001
        _, end = await line.until_end(channel)
        assert (end["type"], await line.closed()) == ("channelClose", 1001)
        assert await house.services.drain.idle(5)


async def test_time_is_up_for_what_does_not_end(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        channel = await line.open("predict", asking(LONG))
        await line.packet(channel, "fragment")
        house.services.drain.begin()
        house.services.drain.expire()
        _, end = await line.until_end(channel)
        assert "shutting down" in end["error"]["title"]


async def test_a_client_that_vanishes_stops_its_model(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with dialled(house, "llm") as line:
            await line.load("chat")
            channel = await line.open("predict", asking(LONG))
            await line.packet(channel, "fragment")
            line.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await house.wait_for("hangup")
        await house.until(lambda: house.leases() == 0 and not house.services.records.active)


async def test_a_client_that_says_goodbye_leaves_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as idle, dialled(house, "llm") as line:
        await line.load("chat")
        await idle.open("alive")
        channel = await line.open("predict", asking(LONG))
        await line.packet(channel, "fragment")
        for one in (line, idle):  # and keeps the connection open
            await one.socket._writer.send_frame(b"\x03\xe8", WSMsgType.CLOSE)
        await house.until(lambda: not house.services.drain._guests and house.leases() == 0)


async def test_a_client_that_reads_nothing_is_dropped(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"write_stall_seconds": 0.3}) as house, dialled(house, "llm") as line:
        await line.load("chat")
        await line.open("predict", asking('{"line": 30000000}'))
        line.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        await house.until(lambda: house.leases() == 1)
        await house.until(lambda: house.leases() == 0)


async def test_predictions_count_as_requests_and_streams(tmp_path: Path) -> None:
    limits = RateLimits(requests_per_minute=None, concurrent_requests=None, streaming_connections=1)
    async with open_house(tmp_path, door=Door(rate_limits=limits)) as house, dialled(house, "llm") as line:
        await line.load("chat")
        first = await line.open("predict", asking(LONG))
        await line.packet(first, "fragment")
        second = await line.open("predict", asking())
        while (frame := await line.next("channelError"))["channelId"] != second:
            pass
        assert frame["error"]["errorData"]["code"] == "rate_limit_exceeded"
        assert (await line.rpc("listLoaded"))["result"]
        await line.stop(first)
        assert (await line.until_end(first))[1]["type"] == "channelClose"
        assert (await line.stream("predict", asking(config=stack())))[1]["type"] == "channelClose"
