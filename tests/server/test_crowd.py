"""How many connections may be open: as numbers, and through real doors."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from doors import House, open_house
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.config import ConnectionSettings, Door, ServerSettings
from llamarunner.errors import RateLimited, ServiceUnavailable
from llamarunner.server import listener
from llamarunner.server.crowd import Crowd, descriptor_limit, quiet_exhaustion, raise_descriptor_limit

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
MINE = [one.address for card in psutil.net_if_addrs().values() for one in card if one.family == socket.AF_INET]
OWN = next((address for address in MINE if not address.startswith("127.")), None)  # this machine, as others see it


def crowd(most: int = 8192, each: int | None = 64, descriptors: int | None = None) -> Crowd:
    return Crowd(ConnectionSettings(max_open=most, max_per_address=each), descriptors)


# ── as numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("most", "descriptors", "room"),
    [(8192, None, 8192), (8192, 20_000, 8192), (8192, 1024, 787), (8192, 64, 19), (100, 64, 19), (8192, 20, 1)],
)
def test_f30_the_room_is_what_the_settings_say_and_less_than_four_fifths_of_what_the_system_allows(
    most: int, descriptors: int | None, room: int
) -> None:
    assert crowd(most, descriptors=descriptors).room == room


def test_f30_ten_thousand_addresses_find_room_until_there_is_none() -> None:
    full = crowd()
    refused = [full.enter(f"192.0.{number >> 8}.{number & 255}") for number in range(10_000)]
    assert [one is None for one in refused] == [True] * 8192 + [False] * 1808
    assert isinstance(refused[-1], ServiceUnavailable)
    assert refused[-1].retry_after


def test_f30_one_address_has_few_and_this_machine_has_all() -> None:
    some = crowd(most=100, each=3)
    refused = [some.enter("192.0.2.1") for _ in range(4)]
    assert refused[:3] == [None] * 3
    assert isinstance(refused[3], RateLimited)
    assert some.enter("192.0.2.9") is None
    assert [some.enter(None) for _ in range(96)] == [None] * 96
    assert isinstance(some.enter(None), ServiceUnavailable)
    some.leave("192.0.2.1")
    assert some.enter("192.0.2.1") is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", None])), max_size=60))
def test_what_is_counted_is_what_is_open_and_nothing_is_kept_of_those_that_left(
    steps: list[tuple[bool, str | None]],
) -> None:
    counting = crowd(most=6, each=3)
    inside: list[str | None] = []
    for comes, client in steps:
        if comes and counting.enter(client) is None:
            inside.append(client)
        elif not comes and client in inside:
            inside.remove(client)
            counting.leave(client)
        assert counting.size == len(inside) <= 6
        assert all(inside.count(one) <= 3 for one in ("a", "b"))
    for client in inside:
        counting.leave(client)
    assert (counting.size, len(counting._by_client)) == (0, 0)


def test_f31_the_limit_of_descriptors_is_raised_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
        raise_descriptor_limit()
        assert descriptor_limit() == min(hard, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_f31_a_lack_of_descriptors_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    quiet_exhaustion(loop)
    lack = {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
    for _ in range(1000):
        loop.call_exception_handler(lack)
    loop.call_exception_handler({"message": "another thing"})
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said == ["no connection can be accepted at present: Too many open files", "another thing"]


# ── through real doors ─────────────────────────────────────────────────────────────────────────────────────────────


class Crowded:
    """Connections that are held open."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def connect(self, address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address)
        self._stack.callback(writer.close)
        return reader, writer


@asynccontextmanager
async def crowded() -> AsyncIterator[Crowded]:
    async with AsyncExitStack() as stack:
        yield Crowded(stack)


async def refusal(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """What a connection is told that is closed at once."""
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"Retry-After: " in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(GET)
    async with asyncio.timeout(5):
        return (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


def addresses(house: House) -> list[tuple[str, int]]:
    return [("127.0.0.1", int(url.rpartition(":")[2])) for url in house.urls.values()]


async def test_f30_all_doors_share_the_room_and_a_place_that_is_free_is_given_again(tmp_path: Path) -> None:
    server = {"connections": {"max_open": 10}}
    async with open_house(tmp_path, models={}, server=server) as house, crowded() as clients:
        doors = addresses(house)
        inside = [await clients.connect(doors[number % 2]) for number in range(10)]
        await house.until(lambda: house.services.crowd.size == 10)
        for door in doors:
            reader, _ = await clients.connect(door)
            assert await refusal(reader) == (503, "service_unavailable")
        for reader, writer in inside:
            assert await served(reader, writer)
        inside[0][1].close()
        await house.until(lambda: house.services.crowd.size == 9)
        assert await served(*await clients.connect(doors[1]))
        inside[1][1].close()
    assert house.services.crowd.size == 0


async def test_f30_this_machine_is_no_single_client(tmp_path: Path) -> None:
    """A hundred streams of one machine are fine."""
    server = {"connections": {"max_per_address": 2}}
    async with open_house(tmp_path, models={}, server=server) as house, crowded() as clients:
        inside = [await clients.connect(addresses(house)[0]) for _ in range(100)]
        assert all([await served(*one) for one in inside])


@pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")
@pytest.mark.parametrize("trusted", [False, True])
async def test_f30_another_machine_has_few_connections_unless_it_is_a_trusted_proxy(
    tmp_path: Path, trusted: bool
) -> None:
    assert OWN
    async with open_house(tmp_path, models={}) as house, crowded() as clients, AsyncExitStack() as stack:
        house.services.configure(
            house.services.settings.model_copy(
                update={"server": ServerSettings(connections=ConnectionSettings(max_per_address=3))}
            )
        )
        door = Door(host="0.0.0.0", trusted_proxies=(OWN,) if trusted else ())
        sockets = listener.bind("0.0.0.0", 0)
        address = (OWN, sockets[0].getsockname()[1])
        await stack.enter_async_context(listener.opened(door, "ollama", house.services, sockets))
        inside = [await clients.connect(address) for _ in range(3)]
        await house.until(lambda: house.services.crowd.size == 3)
        fourth = await clients.connect(address)
        if trusted:
            assert await served(*fourth)
        else:
            assert await refusal(fourth[0]) == (429, "rate_limit_exceeded")
        assert all([await served(*one) for one in inside])
