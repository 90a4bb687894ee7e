"""The relay's HTTP client against raw servers: when a connection is used again, and when a request is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from llamarunner.fleet.launch import Endpoint
from llamarunner.server.client import BUFFER, BrokenOff, CannotConnect, Client
from tests.conftest import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
Answer = Callable[[asyncio.StreamWriter, int, int], Awaitable[None]]


@dataclass
class Server:
    """A raw server; `answer` is called with the writer, the number of the connection, and of the request on it."""

    answer: Answer
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        connection, number = self.connections, 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                number += 1
                await self.answer(writer, connection, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[tuple[Server, Endpoint, Client]]:
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    endpoint = Endpoint(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", "secret")
    async with Client() as client:
        yield server, endpoint, client
    listening.close()
    await eventually(lambda: server.open == 0)


async def post(client: Client, endpoint: Endpoint, body: bytes = b"{}") -> bytes:
    async with await client.request("POST", endpoint, "/v1/x", body) as exchange:
        return await exchange.whole()


async def well(writer: asyncio.StreamWriter, connection: int, number: int) -> None:
    writer.write(OK)


async def test_connection_is_used_again_and_the_request_is_what_the_child_needs() -> None:
    async with served(well) as (server, endpoint, client):
        assert [await post(client, endpoint) for _ in range(3)] == [b"{}"] * 3
        assert (server.connections, len(server.requests)) == (1, 3)
        assert server.requests[0].startswith(b"POST /v1/x HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer secret\r\n" in server.requests[0]


async def test_exchanges_at_the_same_time_have_connections_of_their_own() -> None:
    async with served(well) as (server, endpoint, client):
        await asyncio.gather(*(post(client, endpoint) for _ in range(5)))
        assert server.connections == 5


async def test_kept_connection_that_the_child_closes_costs_no_request() -> None:
    """The child closes after each answer without a word, as a keep-alive time-out does."""

    async def close_after(writer: asyncio.StreamWriter, connection: int, number: int) -> None:
        writer.write(OK)
        writer.close()

    async with served(close_after) as (server, endpoint, client):
        assert [await post(client, endpoint) for _ in range(20)] == [b"{}"] * 20
        assert len(server.requests) == 20


async def test_request_on_a_kept_connection_is_sent_again_if_no_byte_of_an_answer_came() -> None:
    async def only_first(writer: asyncio.StreamWriter, connection: int, number: int) -> None:
        if number == 2:
            writer.close()
        else:
            writer.write(OK)

    async with served(only_first) as (server, endpoint, client):
        assert [await post(client, endpoint) for _ in range(2)] == [b"{}"] * 2
        assert server.connections == 2


async def test_request_is_not_sent_again_once_a_byte_of_the_answer_came() -> None:
    async def break_off(writer: asyncio.StreamWriter, connection: int, number: int) -> None:
        writer.write(OK if number == 1 else b"HTTP/1.1 200")
        if number == 2:
            writer.close()

    async with served(break_off) as (server, endpoint, client):
        await post(client, endpoint)
        with pytest.raises(BrokenOff):
            await post(client, endpoint)
        assert len(server.requests) == 2


async def test_request_on_a_fresh_connection_is_never_sent_again() -> None:
    async def close_at_once(writer: asyncio.StreamWriter, connection: int, number: int) -> None:
        writer.close()

    async with served(close_at_once) as (server, endpoint, client):
        with pytest.raises(BrokenOff):
            await post(client, endpoint)
        assert len(server.requests) == 1


async def test_nobody_listens() -> None:
    async with served(well) as (_, endpoint, _client):
        pass
    async with Client() as client:
        with pytest.raises(CannotConnect):
            await post(client, endpoint)


async def test_leaving_in_the_middle_closes_the_connection_at_once() -> None:
    async def endless(writer: asyncio.StreamWriter, connection: int, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)

    async with served(endless) as (server, endpoint, client):
        async with await client.request("POST", endpoint, "/v1/x") as exchange:
            assert await exchange.some()
        await eventually(lambda: server.open == 0, 1)


async def test_what_nobody_reads_stays_with_the_child() -> None:
    async def flood(writer: asyncio.StreamWriter, connection: int, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(50):
            writer.write(b"x" * 1_000_000)
            await writer.drain()

    async with served(flood) as (_, endpoint, client), await client.request("POST", endpoint, "/v1/x") as exchange:
        await asyncio.sleep(0.05)
        assert exchange._connection._size < BUFFER + 2**18
        assert len(await exchange.whole()) == 50_000_000
