"""The websocket: chats, and its bounds. The clients are those of aiohttp and of `websockets`, and bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp import WSMsgType
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door
from llamarunner.server import channel

Json = dict[str, Any]

LONG = {"tokens": 1000, "delay": 0.02}


def asking(**fields: Any) -> Json:
    """A chat; `fake` tells the child how to misbehave."""
    options = {"fake": fields.pop("fake")} if "fake" in fields else {}
    return {"type": "chat_message", "model": "chat", "message": "hello", "options": options, **fields}


class Talk:
    """A client's end of a websocket, whichever library it is."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, *messages: Json) -> None:
        for message in messages:
            text = json.dumps(message)
            await (self.socket.send_str(text) if self._is_aiohttp else self.socket.send(text))

    async def next(self, kind: str | None = None) -> Json:
        """The next message, or the next one of a type."""
        async with asyncio.timeout(5):
            while True:
                message = json.loads(await (self.socket.receive_str() if self._is_aiohttp else self.socket.recv()))
                if kind in (None, message["type"]):
                    return message

    async def until_end(self, chat_id: str) -> list[Json]:
        """All messages of a chat."""
        messages: list[Json] = []
        while not messages or messages[-1]["type"] not in ("chat_end", "error"):
            message = await self.next()
            messages += [message] if message["id"] == chat_id else []
        return messages

    async def closed(self) -> int | None:
        """Read until the server closes the socket; its code."""
        async with asyncio.timeout(10):
            while (frame := await self.socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED):
                if frame.type is WSMsgType.ERROR:
                    raise frame.data
            return self.socket.close_code

    @property
    def _is_aiohttp(self) -> bool:
        return isinstance(self.socket, aiohttp.ClientWebSocketResponse)


@asynccontextmanager
async def connected(house: House, client: str = "aiohttp", **options: Any) -> AsyncIterator[Talk]:
    url = house.url.replace("http:", "ws:") + "/v1/ws"
    connect = house.client.ws_connect(url, **options) if client == "aiohttp" else websockets.connect(url, **options)
    async with connect as socket:
        yield Talk(socket)


def door(**limits: int | None) -> Door:
    return Door(rate_limits=NO_LIMITS.model_copy(update=limits))


# ── chats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("client", ["aiohttp", "websockets"])
@pytest.mark.parametrize("place", ["ollama", "lmstudio"])
async def test_a_chat_is_a_start_its_pieces_and_an_end_with_usage(tmp_path: Path, client: str, place: str) -> None:
    async with open_house(tmp_path) as house:
        house.urls["lmstudio"] = house.urls[place]
        async with connected(house, client) as talk:
            await talk.send({"type": "chat_message", "model": "CHAT:latest", "message": "Hello!"})
            start, *deltas, end = await talk.until_end("chat-1")
        assert start == {"type": "chat_start", "id": "chat-1", "model": "chat", "request_id": start["request_id"]}
        assert deltas == [{"type": "chat_delta", "id": "chat-1", "content": f"t{n} "} for n in range(5)]
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        assert end == {
            "type": "chat_end", "id": "chat-1", "model": "chat", "finish_reason": "stop", "usage": usage
        }  # fmt: skip
        asked = house.journal("request")[0]
        assert (asked["path"], asked["model"]) == ("/v1/chat/completions", "chat")
        await house.until(lambda: house.leases() == 0)


async def test_several_chats_at_once_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        fakes = {name: {"tokens": count, "delay": 0.01} for name, count in (("a", 3), ("b", 7), ("c", 5))}
        await talk.send(*(asking(id=name, fake=fake) for name, fake in fakes.items()))
        ends, seen = 0, []
        while ends < 3:
            seen.append(await talk.next())
            ends += seen[-1]["type"] == "chat_end"
        for name, fake in fakes.items():
            text = "".join(m.get("content", "") for m in seen if m["id"] == name)
            assert text == "".join(f"t{n} " for n in range(fake["tokens"]))
        order = [message["id"] for message in seen if message["type"] == "chat_delta"]
        assert order != sorted(order), "they ran one after the other"


async def test_a_whole_conversation_thoughts_and_calls_of_tools_pass(tmp_path: Path) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    deltas = [
        {"role": "assistant", "content": None},
        {"reasoning_content": "hm"},
        {"content": "ja \U0001f999"},
        {"tool_calls": [call]},
    ]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    async with open_house(tmp_path) as house, connected(house) as talk:
        asked = asking(messages=messages, id="x", fake={"deltas": deltas})
        del asked["message"]
        await talk.send(asked)
        _, *pieces, end = await talk.until_end("x")
        assert pieces == [{"type": "chat_delta", "id": "x", **delta} for delta in deltas[1:]]
        assert end["finish_reason"] == "tool_calls"


async def test_cancel_ends_one_chat_and_leaves_the_others(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="a", fake=LONG), asking(id="b", fake={"tokens": 20, "delay": 0.02}))
        await talk.next("chat_delta")
        await talk.send({"type": "cancel", "id": "a"})
        end = await talk.next("chat_end")
        assert (end["id"], end["finish_reason"], end["usage"]) == ("a", "cancelled", None)
        await house.wait_for("hangup")
        assert (await talk.next("chat_end"))["id"] == "b"
        await talk.send({"type": "cancel", "id": "a"})
        assert (await talk.next("error"))["error"]["param"] == "id"


async def test_cancel_in_the_same_breath_is_not_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.2")) as house, connected(house) as talk:
        for number in range(5):
            await talk.send(asking(id="a", fake=LONG), {"type": "cancel", "id": "a"})
            assert (await talk.until_end("a"))[-1]["finish_reason"] == "cancelled", number
        await house.until(lambda: house.leases() == 0)


async def test_an_id_can_be_used_again_after_the_end_and_not_before(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="a", fake={"delay": 0.02}), asking(id="a"))
        refused = await talk.next("error")
        assert (refused["id"], refused["error"]["param"]) == ("a", "id")
        assert (await talk.next("chat_end"))["id"] == "a"
        await talk.send(asking(id="a"))
        assert (await talk.until_end("a"))[-1]["type"] == "chat_end"


async def test_closing_the_socket_stops_its_chats(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for abrupt in (False, True):
            async with connected(house) as talk:
                await talk.send(asking(id="a", fake=LONG), asking(id="b", fake=LONG))
                await talk.next("chat_delta")
                await talk.next("chat_delta")
                if abrupt:
                    talk.socket._response.connection.transport.abort()
            await house.until(lambda: house.leases() == 0)
            await house.wait_for("hangup", 4 if abrupt else 2)
        assert len(house.services.drain) == 0
        assert await house.services.drain.idle(1)


@pytest.mark.parametrize(
    ("fake", "begins", "code"),
    [
        ({"status": 400, "message": "no such thing"}, False, "invalid_request"),
        ({"status": 500, "message": "boom"}, False, "server_error"),
        ({"then": "die"}, True, "server_error"),
        ({"then": "reset"}, True, "server_error"),
        ({"then": "garbage"}, True, "server_error"),
    ],
)
async def test_a_chat_that_fails_says_so_and_the_socket_stays(
    tmp_path: Path, fake: Json, begins: bool, code: str
) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="x", fake=fake))
        start, *deltas, last = await talk.until_end("x")
        assert (start["type"], last["type"], last["error"]["code"]) == ("chat_start", "error", code)
        assert bool(deltas) == begins
        await talk.send({"type": "ping", "id": "p"})
        assert await talk.next() == {"type": "pong", "id": "p"}


async def test_a_silent_model_is_given_up_in_time(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"token_seconds": 0.2}) as house, connected(house) as talk:
        await talk.send(asking(id="x", fake={"then": "hang"}))
        assert "silent" in (await talk.until_end("x"))[-1]["error"]["message"]


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
