"""Faults of models' processes and of clients, with real ones on both sides; the ids are the fault catalogue's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from doors import House, open_house

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
SSE_PATHS = ["/v1/chat/completions", "/v1/messages", "/v1/responses"]


def last_event(text: str) -> dict[str, Any]:
    """The data of the last event of a stream."""
    line = next(line for line in reversed(text.splitlines()) if line.startswith("data: "))
    return dict(json.loads(line.removeprefix("data: ")))


async def read_until_cut(response: aiohttp.ClientResponse) -> tuple[str, bool]:
    """All text of an answer, and whether it was cut before its end."""
    text = b""
    try:
        async for part in response.content.iter_any():
            text += part
    except aiohttp.ClientPayloadError:
        return text.decode(), True
    return text.decode(), False


@asynccontextmanager
async def talking(
    house: House, document: dict[str, Any], receive_buffer: int | None = None
) -> AsyncIterator[socket.socket]:
    """Send a chat on a plain socket, whose end the test decides."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await loop.sock_connect(sock, house.address)
    body = json.dumps({**CHAT, **document}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    await loop.sock_sendall(sock, head.encode() + body)
    try:
        yield sock
    finally:
        sock.close()


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ── the model's side ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", SSE_PATHS)
async def test_f01_crash_in_a_stream_is_its_last_event_and_a_cut(tmp_path: Path, path: str) -> None:
    document = {**CHAT, "input": "hello", "stream": True, "fake": {"tokens": 5, "then": "die", "code": 7}}
    async with open_house(tmp_path) as house:
        async with house.post(path, document) as response:
            assert response.status == 200
            text, cut = await read_until_cut(response)
        assert cut
        assert text.count('"delta":"t' if path == "/v1/responses" else '"content": "t') == 5
        error = last_event(text)
        message = {"/v1/responses": error}.get(path) or error["error"]
        assert "exit" in message["message"]
        assert "7" in message["message"]
        assert ("event: error" in text) == (path != "/v1/chat/completions")
        assert house.leases() == 0
        assert len(house.journal("request")) == 1, "nothing is asked twice once an answer has begun"


async def test_f01_crash_in_an_answer_is_502_and_the_next_request_works(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.chat(fake={"then": "kill"}) as response:
            assert response.status == 502
            error = (await response.json())["error"]
        assert error["code"] == "server_error"
        assert "SIGKILL" in error["message"]
        assert house.leases() == 0
        async with house.chat() as response:
            assert response.status == 200
        assert len(house.journal("start")) == 2


async def test_f02_a_process_that_dies_before_it_answers_is_502_and_not_asked_again(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(house.chat(fake={"prefill": 30}).__aenter__())
            await house.wait_for("request")
            os.kill(house.journal("start")[0]["pid"], signal.SIGKILL)
        async with asking.result() as response:
            assert response.status == 502
            assert "SIGKILL" in (await response.json())["error"]["message"]
        assert len(house.journal("request")) == 1


async def test_f02_a_process_found_dead_is_started_again_and_asked_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.chat() as response:
            assert response.status == 200
        pid = house.journal("start")[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        _wait_for_death(pid)  # without leaving the loop a chance to tell the supervisor
        async with house.chat() as response:
            assert response.status == 200
        assert len(house.journal("start")) == 2
        assert len(house.journal("request")) == 2


async def test_f02_a_process_that_lives_but_cannot_be_reached_is_replaced(tmp_path: Path) -> None:
    program = ("vanishing_llama.py", str(tmp_path / "mark"))
    async with open_house(tmp_path, program=program) as house:
        for _ in range(2):
            async with house.chat() as response:
                assert response.status == 200
        unit = house.services.supervisor.unit(house.services.catalog.find("chat"))
        assert unit is not None
        assert len(unit.failures) == 1


def _wait_for_death(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)


async def test_f03_no_first_byte_is_504_and_a_process_that_answers_probes_lives(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"first_token_seconds": 0.3}) as house:
        async with house.chat(fake={"prefill": 30}) as response:
            assert response.status == 504
            assert "0.3 seconds" in (await response.json())["error"]["message"]
        await house.wait_for("hangup")
        assert house.leases() == 0
        async with house.chat() as response:
            assert response.status == 200
        assert len(house.journal("start")) == 1


async def test_f03_a_frozen_process_ends_the_stream_and_is_killed(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"token_seconds": 0.3}) as house:
        async with house.chat(stream=True, fake={"tokens": 3, "then": "freeze"}) as response:
            text, cut = await read_until_cut(response)
        assert cut
        assert "fell silent" in last_event(text)["error"]["message"]
        await house.until(lambda: not house.services.supervisor.loaded())
        async with house.chat() as response:
            assert response.status == 200
        assert len(house.journal("start")) == 2


@pytest.mark.parametrize("then", ["garbage", "reset", "short"])
async def test_f11_a_stream_that_turns_to_nonsense_is_cut_with_an_error(tmp_path: Path, then: str) -> None:
    async with open_house(tmp_path) as house:
        async with house.chat(stream=True, fake={"tokens": 3, "delay": 0.02, "then": then}) as response:
            text, cut = await read_until_cut(response)
        assert cut
        assert text.count('"content": "t') == 3
        assert "broke off" in last_event(text)["error"]["message"]
        assert house.leases() == 0


@pytest.mark.parametrize("then", ["garbage", "reset", "short"])
async def test_f11_a_broken_answer_is_502(tmp_path: Path, then: str) -> None:
    async with open_house(tmp_path) as house, house.chat(fake={"then": then}) as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "server_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_f11_a_line_of_ten_megabytes_passes(tmp_path: Path, stream: bool) -> None:
    async with open_house(tmp_path) as house, house.chat(stream=stream, fake={"line": 10_000_000}) as response:
        assert (await response.read()).count(b"x") >= 10_000_000


# ── the client's side ──────────────────────────────────────────────────────────────────────────────────────────────

PHASES: dict[str, tuple[dict[str, Any], str]] = {
    "mid-stream": ({"stream": True, "fake": {"tokens": 1000, "delay": 0.01}}, "token"),
    "mid-prefill": ({"stream": True, "fake": {"prefill": 30}}, "request"),
    "in one piece": ({"fake": {"prefill": 30}}, "request"),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
async def test_f20_a_hang_up_reaches_the_model(tmp_path: Path, phase: str, leave: Any) -> None:
    document, fact = PHASES[phase]
    async with open_house(tmp_path) as house:
        async with talking(house, document) as sock:
            await house.wait_for(fact)
            left = time.monotonic()
            leave(sock)
            hangup = (await house.wait_for("hangup"))[0]
        assert hangup["at"] - left < 0.1
        assert house.leases() == 0


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
async def test_f20_a_hang_up_while_loading_leaves_the_load_alone(tmp_path: Path, leave: Any) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.3")) as house:
        async with talking(house, {}) as sock:
            await house.wait_for("start")
            leave(sock)
            await house.until(lambda: house.leases() == 0, seconds=0.25)
        await house.until(lambda: house.services.supervisor.loaded() == ["chat"])
        assert house.journal("request") == []


async def test_f20_a_hang_up_in_the_queue_gives_up_the_place(tmp_path: Path) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "other": {}}
    async with open_house(tmp_path, models=models, supervisor={"max_loaded_models": 1}) as house:
        async with talking(house, {"fake": {"prefill": 30}}) as busy:
            await house.wait_for("request")
            async with talking(house, {"model": "other"}) as waiting:
                await house.until(lambda: house.leases() == 2)
                reset(waiting)
                await house.until(lambda: house.leases() == 1, seconds=0.1)
            busy.close()
            await house.until(lambda: house.leases() == 0)
        assert len(house.journal("start")) == 1


async def test_f20_a_hang_up_in_the_upload_troubles_no_model(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        _, writer = await asyncio.open_connection(*house.address)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()
        async with house.chat() as response:
            assert response.status == 200
        assert len(house.journal("request")) == 1


async def test_f21_f25_a_client_that_never_reads_is_dropped_and_pulls_little(tmp_path: Path) -> None:
    readers, tokens = 4, 100_000  # 13 MB for each, if somebody took it
    async with open_house(tmp_path, server={"write_stall_seconds": 0.5}) as house, contextlib.AsyncExitStack() as stack:
        for _ in range(readers):
            await stack.enter_async_context(
                talking(house, {"stream": True, "fake": {"tokens": tokens}}, receive_buffer=4096)
            )
        await house.wait_for("hangup", readers, seconds=30)
        await house.until(lambda: house.leases() == 0)
        pulled = len(house.journal("token")) * 130 / readers  # a token has about 130 bytes on the wire
        assert pulled < 2 * 2**20
        assert house.journal("end") == []


async def test_f21_a_long_answer_to_a_client_that_never_reads_is_dropped(tmp_path: Path) -> None:
    server = {"write_stall_seconds": 0.3}
    document = {"fake": {"line": 10_000_000}}
    async with open_house(tmp_path, server=server) as house, talking(house, document, receive_buffer=4096) as sock:
        await house.wait_for("end")
        await house.until(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET)


async def test_f25_a_client_that_reads_slowly_gets_all(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"write_stall_seconds": 0.3}) as house:
        async with talking(house, {"fake": {"line": 2_000_000}}, receive_buffer=65536) as sock:
            loop = asyncio.get_running_loop()
            got = b""
            while not got.endswith(b"}]}"):
                got += await loop.sock_recv(sock, 65536)
                await asyncio.sleep(0.01)
        assert got.count(b"x") >= 2_000_000


async def test_f24_a_body_that_stops_is_408(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, server={"body_idle_seconds": 0.3}) as house:
        started = time.monotonic()
        answer = await house.request(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", until=b"}}"
        )
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"invalid_request"' in answer
        assert b"Connection: close" in answer
        assert 0.1 <= time.monotonic() - started < 3


async def test_f24_a_body_that_drips_is_408(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, server={"body_idle_seconds": 0.6}) as house:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        async with asyncio.timeout(2), asyncio.TaskGroup() as group:
            dripping = group.create_task(_drip(writer))
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            dripping.cancel()
        writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def test_f24_a_slow_but_steady_body_is_taken(tmp_path: Path) -> None:
    document = json.dumps({**CHAT, "padding": "x" * 20_000}).encode()
    async with open_house(tmp_path, server={"body_idle_seconds": 0.3}) as house:

        async def drip() -> AsyncIterator[bytes]:
            for start in range(0, len(document), 500):
                await asyncio.sleep(0.01)
                yield document[start : start + 500]

        async with house.client.post(f"{house.url}/v1/chat/completions", data=drip()) as response:
            assert response.status == 200


@pytest.mark.parametrize("length", [10**6 + 1, 101 * 10**6, 10**12])
async def test_f26_a_body_too_large_is_refused_unread(tmp_path: Path, length: int) -> None:
    async with open_house(tmp_path, models={}, server={"max_body_mb": 1}) as house:
        answer = await house.request(
            f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n", until=b"}}"
        )
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"limit of 1 MB" in answer


async def test_f26_an_endless_body_is_refused_at_the_limit(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, server={"max_body_mb": 1}) as house:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        sent = 0
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                while sent < 50_000_000 and not reader._buffer:
                    writer.write(chunk)
                    await writer.drain()
                    sent += 0x10000
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        assert sent < 50_000_000
        writer.close()


async def test_f26_a_body_shorter_than_it_said_reaches_no_model(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        body = json.dumps(CHAT)
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            + f"Content-Length: {len(body) + 5}\r\n\r\n{body}".encode()
        )
        writer.write_eof()
        async with asyncio.timeout(5):
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert house.journal("start") == []


BAD_BODIES = {
    "malformed": b'{"model":',
    "depth 100,000": b'{"model":' + b"[" * 100_000,
    "NaN": b'{"model":"chat","temperature":NaN}',
    "4301 digits": b'{"model":"chat","seed":' + b"9" * 4301 + b"}",
    "lone surrogate": b'{"model":"chat","user":"\\ud800"}',
    "model twice": b'{"model":"chat","model":"other"}',
    "UTF-16": '{"model":"chat"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"model":"chat"}',
    "NUL": b'{"model":"chat"}\0',
    "a list": b"[]",
    "model is a number": b'{"model":7}',
    "model is a list": b'{"model":["chat"]}',
    "stream is a string": b'{"model":"chat","stream":"yes"}',
}


@pytest.mark.parametrize("door", ["ollama", "lmstudio"])
async def test_f33_bad_json_is_400_in_the_callers_language(tmp_path: Path, door: str) -> None:
    async with open_house(tmp_path) as house:
        for name, body in BAD_BODIES.items():
            async with house.client.post(house.urls[door] + "/v1/chat/completions", data=body) as response:
                assert response.status == 400, name
                error = (await response.json())["error"]
                assert (error["code"], error["type"]) == ("invalid_request", "invalid_request_error")
            async with house.client.post(house.urls[door] + "/v1/messages", data=body) as response:
                assert response.status == 400, name
                answer = await response.json()
                assert (answer["type"], answer["error"]["type"]) == ("error", "invalid_request_error")
        assert house.journal("start") == []
