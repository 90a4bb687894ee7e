"""The websocket: chats, and what holds it within bounds. The clients are aiohttp, `websockets`, and bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import zlib
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType
from doors import open_house
from talking import LONG, asking, connected

from llamarunner.config import NO_LIMITS, Door
from llamarunner.server import channel


def door(**limits: int | None) -> Door:
    return Door(rate_limits=NO_LIMITS.model_copy(update=limits))


# ── bad messages ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "message_id", "param"),
    [
        ("{", None, None),
        ("[]", None, None),
        ("", None, None),
        ('{"type": "ping", "type": "ping"}', None, "type"),
        ("{}", None, "type"),
        ('{"type": "nonsense", "id": "a"}', "a", "type"),
        ('{"type": 7}', None, "type"),
        ('{"type": "cancel"}', None, "id"),
        ('{"type": "ping", "id": 7}', None, "id"),
        ('{"type": "ping", "extra": 7, "id": "a"}', "a", "extra"),
        ('{"type": "chat_message", "id": "a"}', "a", "message"),
        ('{"type": "chat_message", "id": "a", "message": "x", "messages": []}', "a", "message"),
        ('{"type": "chat_message", "id": "a", "messages": []}', "a", "messages"),
        ('{"type": "chat_message", "id": "a", "messages": [{"role": "king"}]}', "a", "messages[0].role"),
        ('{"type": "chat_message", "id": "a", "message": "x", "model": "none"}', "a", "model"),
        ('{"type": "chat_message", "id": "a", "message": "x", "options": {"stream": false}}', "a", "options.stream"),
        ('{"type": "chat_message", "id": "a", "message": "x", "options": {"n": 2}}', "a", "options.n"),
        ('{"type": "chat_message", "id": "a", "message": "x", "temperature": 1}', "a", "temperature"),
        ('{"type": "subscribe", "events": "model.*"}', None, "events"),
        ('{"type": "subscribe", "events": ["modle.*"]}', None, "events.0"),
        ('{"type": "subscribe", "logs": ["none"]}', None, "model"),
        ("[" * 1000, None, None),
        ('{"a": NaN}', None, None),
    ],
)
async def test_a_bad_message_is_answered_by_an_error_that_names_the_field(
    tmp_path: Path, text: str, message_id: str | None, param: str | None
) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.socket.send_str(text)
        said = await talk.next()
        assert (said["type"], said["id"], said["error"]["param"]) == ("error", message_id, param)
        assert "request body" not in said["error"]["message"]
        await talk.send({"type": "ping"})
        assert await talk.next() == {"type": "pong", "id": None}


async def test_binary_messages_are_refused_and_pings_answered(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house, autoping=False) as talk:
        await talk.socket.send_bytes(b"{}")
        assert (await talk.next())["type"] == "error"
        await talk.socket.ping(b"here?")
        frame = await talk.socket.receive()
        assert (frame.type, frame.data) == (WSMsgType.PONG, b"here?")


# ── the upgrade ────────────────────────────────────────────────────────────────────────────────────────────────────

HANDSHAKE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}


def upgrade(line: str = "GET /v1/ws HTTP/1.1", body: str = "", **headers: str | None) -> str:
    chosen = {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{name}: {value}" for name, value in chosen.items() if value is not None]
    return "\r\n".join([line, *lines, "", body])


async def test_a_good_upgrade_is_answered_with_101(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        answer = await house.request(upgrade(), until=b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"X-Request-ID: " in answer


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (upgrade(Origin="https://evil.example"), 403),  # S-20
        (upgrade(Origin="null"), 403),
        (upgrade(Origin="http://localhost:9999"), 403),
        (upgrade(Host="evil.example"), 403),
        (upgrade(Content_Length="5", body="GET /"), 400),
        (upgrade(Transfer_Encoding="chunked", body="0\r\n\r\n"), 400),
        (upgrade(Content_Length="-1"), 400),
        (upgrade("POST /v1/ws HTTP/1.1", Content_Length="0"), 400),
        (upgrade("GET /v1/ws HTTP/1.0"), 400),
        (upgrade("GET /v1/models HTTP/1.1"), 400),
        (upgrade("GET //v1/ws HTTP/1.1"), 400),
        (upgrade("GET /v1/ws/ HTTP/1.1"), 400),
        (upgrade(Upgrade="tcp"), 400),
        (upgrade(Upgrade=None, Connection="close"), 400),
        (upgrade(Connection="close"), 400),
        (upgrade(Sec_WebSocket_Version="99"), 400),
        (upgrade(Sec_WebSocket_Key="short"), 400),
        (upgrade(Sec_WebSocket_Key=None), 400),
    ],
)
async def test_other_upgrades_are_refused_and_the_connection_is_closed(
    tmp_path: Path, request_text: str, status: int
) -> None:
    async with open_house(tmp_path, models={}) as house:
        answer = await house.request(request_text)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or answer.startswith(f"HTTP/1.0 {status} ".encode())
        assert answer.count(b"HTTP/1.") == 1
        assert b'"error"' in answer


async def test_pages_that_the_owner_trusts_may_connect(tmp_path: Path) -> None:
    trusting = Door(rate_limits=NO_LIMITS, cors_origins=("https://app.example",))
    async with open_house(tmp_path, models={}, door=trusting) as house:
        for origin, status in (("https://app.example", 101), ("https://evil.example", 403)):
            answer = await house.request(upgrade(Origin=origin), until=b"\r\n\r\n")
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_keys_hold_for_the_upgrade_and_for_every_message(tmp_path: Path) -> None:
    keys = Door.model_validate(
        {"api_keys": ["all", {"key": "small", "models": ["tiny"]}], "rate_limits": NO_LIMITS.model_dump()}
    )
    async with open_house(tmp_path, models={"chat": {}, "tiny": {}}, door=keys) as house:
        for wrong in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                async with connected(house, headers=wrong):
                    pass
            assert caught.value.status == 401
        async with connected(house, headers={"Authorization": "Bearer small"}) as talk:
            await talk.send(asking(id="a"))
            refused = await talk.next()
            assert (refused["type"], refused["error"]["code"]) == ("error", "model_not_found")
            await talk.send(asking(id="a", model="tiny"))
            assert (await talk.until_end("a"))[-1]["type"] == "chat_end"
            for view in house.services.views:
                view.configure(keys.model_copy(update={"api_keys": ("other",)}))
            await talk.send(asking(id="a", model="tiny"))
            assert (await talk.next())["error"]["code"] == "invalid_api_key"


async def test_the_log_has_a_line_for_the_socket_and_one_for_each_chat(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "llamarunner.access")
    async with open_house(tmp_path) as house:
        async with connected(house) as talk:
            await talk.send(asking(id="good"), asking(id="bad", model="none"))
            request_id = (await talk.next("chat_start"))["request_id"]
            await talk.next("chat_end")
        await house.until(lambda: "GET /v1/ws " in caplog.text)
    assert f"{request_id} 127.0.0.1 CHAT /v1/ws 200 " in caplog.text
    assert "CHAT /v1/ws 404 " in caplog.text


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_chat_is_a_request_and_the_upgrade_is_one(tmp_path: Path) -> None:
    async with open_house(tmp_path, door=door(requests_per_minute=3)) as house, connected(house) as talk:
        for name in ("a", "b"):
            await talk.send(asking(id=name))
            assert (await talk.until_end(name))[-1]["type"] == "chat_end"
        await talk.send(asking(id="c"))
        refused = await talk.next()
        assert (refused["id"], refused["error"]["code"]) == ("c", "rate_limit_exceeded")
        assert 1 <= refused["retry_after"] <= 60
        await talk.send({"type": "ping"})
        assert (await talk.next())["type"] == "pong"


async def test_chats_are_streams_and_an_open_socket_is_none(tmp_path: Path) -> None:
    limits = door(concurrent_requests=2, streaming_connections=1)
    async with open_house(tmp_path, door=limits) as house, connected(house) as talk, connected(house):
        await talk.send(asking(id="a", fake=LONG))
        await talk.next("chat_delta")
        await talk.send(asking(id="b"))
        assert "streams" in (await talk.next("error"))["error"]["message"]
        async with house.chat() as response:
            assert response.status == 200
        await talk.send({"type": "cancel", "id": "a"})
        await talk.next("chat_end")
        await talk.send(asking(id="b"))
        assert (await talk.until_end("b"))[-1]["type"] == "chat_end"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connected(house):
                pass
        assert caught.value.status == 429
    assert house.services.views[0].channels._clients.keys() <= {"127.0.0.1"}


async def test_a_seat_is_free_again_when_a_socket_closes(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=door(concurrent_requests=1)) as house:
        for _ in range(3):
            async with connected(house) as talk:
                await talk.send({"type": "ping"})
                await talk.next("pong")


async def test_chats_of_one_socket_are_bounded_without_limits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "MOST_CHATS", 3)
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(*(asking(id=name, fake=LONG) for name in "abcd"))
        refused = await talk.next("error")
        assert (refused["id"], refused["error"]["code"]) == ("d", "rate_limit_exceeded")


# ── F-32 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_f32_a_flood_of_messages_closes_the_socket(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house, connected(house) as talk:
        for _ in range(200):
            await talk.socket.send_str('{"type": "ping"}')
        assert await talk.closed() == 1008


async def test_f32_a_flood_of_pings_closes_the_socket(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house, connected(house, autoping=False) as talk:
        for _ in range(200):
            await talk.socket.ping(b"x" * 100)
        assert await talk.closed() == 1008


async def test_a_burst_of_forty_messages_is_fine(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house, connected(house) as talk:
        await talk.send(*({"type": "ping", "id": str(number)} for number in range(40)))
        assert [(await talk.next())["id"] for _ in range(40)] == [str(number) for number in range(40)]


@pytest.mark.parametrize("size", [channel.MAX_MESSAGE + 1, 64 * 2**20])
async def test_f32_a_message_that_is_too_large_closes_the_socket(tmp_path: Path, size: int) -> None:
    async with open_house(tmp_path, models={}) as house:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(upgrade().encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * 2**16)
        async with asyncio.timeout(5):
            closing = await reader.readexactly(4)
        writer.close()
        assert closing[0] == 0x88
        assert int.from_bytes(closing[2:4], "big") == 1009


async def test_a_message_as_large_as_allowed_passes(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="a", message="x" * (channel.MAX_MESSAGE - 200)))
        assert (await talk.until_end("a"))[-1]["type"] == "chat_end"


async def test_f32_a_compressed_message_is_never_inflated(tmp_path: Path) -> None:
    bomb = zlib.compressobj(wbits=-15)
    packed = bomb.compress(bytes(2**24)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    async with open_house(tmp_path, models={}) as house:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(upgrade(Sec_WebSocket_Extensions="permessage-deflate").encode())
        assert b"permessage" not in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\xc1\xfe" + len(packed).to_bytes(2, "big") + bytes(4) + packed)
        async with asyncio.timeout(5):
            closing = await reader.readexactly(4)
        writer.close()
        assert (closing[0], int.from_bytes(closing[2:4], "big")) == (0x88, 1002)


async def test_f32_a_client_that_never_reads_stops_the_model_and_is_dropped(tmp_path: Path) -> None:
    """It takes the handshake and then nothing; what it does not read stays in the model, not in our memory."""
    async with open_house(tmp_path, server={"write_stall_seconds": 0.5}) as house:
        reader, writer = await asyncio.open_connection(*house.address, limit=1024)
        writer.write(upgrade().encode())
        await reader.readuntil(b"\r\n\r\n")
        text = json.dumps(asking(id="a", fake={"tokens": 1_000_000})).encode()
        writer.write(b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await house.wait_for("token", 100)
        await house.wait_for("hangup", seconds=10)
        assert await house.services.drain.idle(5), "the socket is still open"
        assert house.leases() == 0
        assert len(house.journal("token")) < 900_000
        writer.close()


async def test_f32_a_client_that_answers_no_ping_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PING_SECONDS", 0.1)
    async with open_house(tmp_path, models={}) as house:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(upgrade().encode())
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert set(await reader.read()) <= {0x89, 0}, "something else than pings"
        writer.close()
        assert await house.services.drain.idle(1)


async def test_a_client_that_does_not_take_part_in_the_closing_is_dropped(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(upgrade().encode())
        await reader.readuntil(b"\r\n\r\n")
        house.services.drain.begin()
        async with asyncio.timeout(5):
            closing = await reader.readexactly(4)
        assert (closing[0], int.from_bytes(closing[2:4], "big")) == (0x88, 1001)
        assert await house.services.drain.idle(3)
        writer.close()


# ── the end of the server ──────────────────────────────────────────────────────────────────────────────────────────


async def test_when_the_server_stops_idle_sockets_close_with_1001(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house, connected(house) as talk, connected(house) as other:
        await talk.send({"type": "ping"})
        await talk.next()
        house.services.drain.begin()
        assert await talk.closed() == 1001
        assert await other.closed() == 1001
        assert await house.services.drain.idle(1)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connected(house):
                pass
        assert caught.value.status == 503


async def test_when_the_server_stops_chats_may_end_and_nothing_new_begins(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="a", fake={"tokens": 20, "delay": 0.02}))
        await talk.next("chat_delta")
        house.services.drain.begin()
        await talk.send(asking(id="b"), {"type": "ping"})
        assert (await talk.next("error"))["error"]["code"] == "service_unavailable"
        end = await talk.next("chat_end")
        assert (end["id"], end["usage"]["completion_tokens"]) == ("a", 20)
        assert await talk.closed() == 1001


async def test_chats_whose_time_is_up_say_so_before_the_socket_closes(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="a", fake=LONG))
        await talk.next("chat_delta")
        house.services.drain.begin()
        assert not await house.services.drain.idle(0.05)
        house.services.drain.expire()
        assert "shutting down" in (await talk.next("error"))["error"]["message"]
        assert await talk.closed() == 1001
        assert await house.services.drain.idle(2)
