"""Hosts that are asked by HTTP: where they may be, and what they do to those who ask."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import psutil
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from llamarunner.config import OutboundSettings
from llamarunner.outbound import Outbound
from llamarunner.toolbox import Asker, Ephemeral, Plugin, ToolFailed
from llamarunner.toolbox.remote import Guarded
from llamarunner.toolbox.servers import Remote
from llamarunner.toolbox.wire import Wire
from tests.conftest import eventually
from tests.toolbox.opening import LOCAL, boxes, lost, opened, refused, text, written

NOT_PUBLIC = (
    "Unable to connect to remote MCP server 'there' at url '{}'. URL resolves to a non-public address. "
    "We only allow public addresses for dynamic remote MCP connections."
)
NOT_ALLOWED = (
    "Unable to connect to remote MCP server 'there' at url '{}'. The URL leads to an address that is not public; "
)
TOOLS = {"tools": [{"name": "add", "inputSchema": {"type": "object"}}]}
EVENTS = {"Content-Type": "text/event-stream"}

Answer = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class Host:
    """Speaks streamable HTTP, until a call of its tool, which `call` answers."""

    def __init__(self, call: Answer) -> None:
        self.call = call
        self.asked: list[tuple[str, str]] = []  # method, and what of MCP
        self.headers: list[Mapping[str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        message = json.loads(await request.text() or "{}")
        self.asked.append((request.method, message.get("method", "")))
        self.headers.append(request.headers)
        if request.method != "POST":
            return web.Response(status=405)
        match message.get("method"):
            case "initialize":
                info = {"name": "host", "version": "1"}
                version = message["params"]["protocolVersion"]
                result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
                return web.json_response(said(message, result), headers={"Mcp-Session-Id": "one"})
            case "tools/list":
                return web.json_response(said(message, TOOLS))
            case "tools/call":
                return await self.call(request, message)
            case "server/discover":
                error = {"code": -32601, "message": "Method not found"}
                return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})
        return web.Response(status=202)


def said(message: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


@asynccontextmanager
async def hosting(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve every path with a handler; yield the origin."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def calling(call: Answer) -> AsyncIterator[Host]:
    host = Host(call)
    async with hosting(host.handle) as origin:
        host.url = f"{origin}/mcp"
        yield host


async def three(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
    return web.json_response(said(message, {"content": [{"type": "text", "text": "3"}]}))


# ── where ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_s29_private_addresses_are_refused_unless_they_are_allowed() -> None:
    elsewhere = Asker(plugins=True, loopback=False)
    async with calling(three) as host:
        url = host.url + "?token=secret"
        for settings, asker, reason in ((False, LOCAL, NOT_PUBLIC), (True, elsewhere, NOT_ALLOWED)):
            async with boxes(allow_private_addresses=settings) as toolboxes:
                with pytest.raises(ToolFailed) as caught:
                    await toolboxes.opened([Ephemeral("there", url)], asker).__aenter__()
                assert caught.value.message.startswith(reason.format(host.url))
                assert caught.value.code == "mcp_connection_error"
        assert host.asked == []
        async with opened(Ephemeral("there", url)) as toolbox:
            assert text((await toolbox.call("add", {})).output) == "3"


async def test_s29_networks_that_the_owner_allows_may_be_named() -> None:
    guard = Outbound(OutboundSettings(allow_cidrs=("127.0.0.0/8",)), set)
    async with (
        calling(three) as host,
        opened(Ephemeral("there", host.url), outbound=guard, allow_private_addresses=False) as toolbox,
    ):
        assert text((await toolbox.call("add", {})).output) == "3"


async def test_s29_the_servers_own_ports_are_never_asked(tmp_path: Any) -> None:
    async with calling(three) as host:
        guard = Outbound(OutboundSettings(allow_cidrs=("127.0.0.0/8",)), lambda: {int(host.url.split(":")[2][:-4])})
        path = written(tmp_path, {"own": {"url": host.url}})
        for integration in (Ephemeral("there", host.url), Plugin("mcp/own")):
            assert (
                "never the server's own ports"
                in (await refused(integration, outbound=guard, servers_file=path)).message
            )
        assert host.asked == []


class ChangingNames(AbstractResolver):
    """Tells the address of this machine so often, and then that of a metadata service."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.times -= 1
        address = "127.0.0.1" if self.times >= 0 else "169.254.169.254"
        return [ResolveResult(hostname=host, host=address, port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is kept."""


async def test_s29_every_dial_is_judged_not_the_first_alone() -> None:
    async with calling(three) as host:
        there = Ephemeral("there", host.url.replace("127.0.0.1", "name.test"))
        guard = Outbound(OutboundSettings(), set, ChangingNames(0))
        assert "address that is not public" in (await refused(there, outbound=guard)).message
        assert host.asked == []
        names = ChangingNames(100)
        async with opened(there, outbound=Outbound(OutboundSettings(), set, names)) as toolbox:
            names.times = 0
            with pytest.raises(ToolFailed, match="address that is not public"):
                await toolbox.call("add", {})
        assert ("POST", "tools/call") not in host.asked


# ── what they do ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", ["mcp", "sse"])
async def test_s30_headers_follow_no_redirect(status: int, path: str) -> None:
    async with calling(three) as other:

        async def leading_away(request: web.Request) -> web.Response:
            if path == "sse" and request.method == "POST":
                return web.Response(status=405)
            return web.Response(status=status, headers={"Location": other.url})

        async with hosting(leading_away) as origin:
            error = await refused(Ephemeral("there", f"{origin}/{path}", headers={"Authorization": "Bearer x"}))
        assert f"answered with status {status}" in error.message
        assert other.asked == []


async def test_s30_an_endpoint_of_another_host_is_not_asked() -> None:
    async with calling(three) as other:

        async def old(request: web.Request) -> web.StreamResponse:
            if request.method == "POST":
                return web.Response(status=405)
            return web.Response(text=f"event: endpoint\ndata: {other.url}\n\n", headers=EVENTS)

        async with hosting(old) as origin:
            there = Ephemeral("there", f"{origin}/sse", headers={"Authorization": "Bearer x"})
            await refused(there, connect_seconds=1)
        assert other.asked == []


async def test_s30_nothing_goes_to_another_host_whatever_the_sdk_thinks() -> None:
    async with calling(three) as host, Outbound(OutboundSettings(), set).line(loopback=True) as line:
        wire = Wire()
        for url in (host.url.replace("127.0.0.1", "localhost"), host.url.replace("http://", "https://")):
            guarded = Guarded(line, Remote(url), wire, strict=False)
            async with httpx2.AsyncClient(transport=guarded, headers={"Authorization": "Bearer x"}) as client:
                with pytest.raises(httpx2.ConnectError, match="another host"):
                    await client.post(host.url)
        assert (host.asked, wire.fault) == ([], "It leads to another host, which is not followed.")


async def test_s30_headers_are_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def echo(request: web.Request) -> web.Response:
        return web.Response(status=401, text=f"not {request.headers['Authorization']}")

    async with hosting(echo) as origin:
        headers = {"Authorization": "Bearer s3cret"}
        error = await refused(Ephemeral("there", f"{origin}/mcp?key=hidden", headers=headers))
    assert "answered with status 401" in error.message
    told = error.message + repr(error) + "".join(record.getMessage() for record in caplog.records)
    assert "s3cret" not in told
    assert "hidden" not in told


async def silent(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(600)
    raise AssertionError


async def dripping(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers=EVENTS)
    await response.prepare(request)
    while True:
        await response.write(b": still here\n\n")
        await asyncio.sleep(0.02)


def endless(piece: bytes, kind: str) -> Answer:
    async def answer(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        while True:
            await response.write(piece)

    return answer


async def packed(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
    body = gzip.compress(json.dumps(said(message, {"content": []})).encode())
    return web.Response(body=body, content_type="application/json", headers={"Content-Encoding": "gzip"})


async def hanging_up(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def ended(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text=": no answer\n\n", headers=EVENTS)


NOTE = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n'
LOST: dict[str, tuple[Answer, str, float]] = {
    "silent": (silent, "did not answer within 0.5 seconds", 0.5),
    "dripping": (dripping, "did not answer within 0.5 seconds", 0.5),
    "endless_json": (endless(b"x" * 65_536, "application/json"), "message of more than 4096 KiB", 30),
    "endless_line": (endless(b"x" * 65_536, "text/event-stream"), "message of more than 4096 KiB", 30),
    "endless_lines": (endless(b"data: " + b"x" * 65_536 + b"\n", "text/event-stream"), "closed|more than", 30),
    "endless_comments": (endless(b":" + b" " * 65_536 + b"\n", "text/event-stream"), "It sent more than 32 MiB", 60),
    "endless_events": (endless(NOTE, "text/event-stream"), "It sent more than 5000 messages", 60),
    "packed": (packed, "compressed", 30),
    "hanging_up": (hanging_up, "closed before the answer", 30),
    "ended": (ended, "closed", 30),
}


@pytest.mark.parametrize("way", LOST)
async def test_s32_a_host_that_is_lost_in_a_call_is_told_as_such(way: str) -> None:
    call, message, seconds = LOST[way]
    begun, memory = time.monotonic(), psutil.Process().memory_info().rss
    async with calling(call) as host:
        error = await lost(Ephemeral("there", host.url), call_seconds=seconds)
    assert re.match("Remote MCP server 'there' failed to run 'add'. .*" + message, error.message)
    assert time.monotonic() - begun < 30
    assert psutil.Process().memory_info().rss - memory < 100_000_000


async def test_s33_a_session_is_ended_there_and_its_stream_is_closed() -> None:
    async with calling(three) as host:
        async with opened(Ephemeral("there", host.url)) as toolbox:
            await toolbox.call("add", {})
        await eventually(lambda: ("DELETE", "") in host.asked)
        assert host.headers[-1]["Mcp-Session-Id"] == "one"


async def test_s33_a_host_that_will_not_part_is_left_soon() -> None:
    async with calling(three) as host:
        ordinary = host.handle

        async def clinging(request: web.Request) -> web.StreamResponse:
            if request.method == "DELETE":
                await asyncio.sleep(600)
            return await ordinary(request)

        async with hosting(clinging) as origin, boxes() as toolboxes:
            async with toolboxes.opened([Ephemeral("there", f"{origin}/mcp")], LOCAL):
                begun = time.monotonic()
            assert time.monotonic() - begun < 10
            assert not any("Session.run" in str(task.get_coro()) for task in asyncio.all_tasks())


NO_SERVERS: dict[str, tuple[int, str, dict[str, str], str]] = {
    "a_page": (200, "<html>", {"Content-Type": "text/html"}, "error -32600"),
    "nothing": (404, "", {}, "status 404"),
    "an_error": (500, "", {}, "status 500"),
    "no_json": (200, "{", {"Content-Type": "application/json"}, "error -32700"),
    "no_event": (200, "data: {\n\n", EVENTS, "error -32700"),
    "nothing_said": (202, "", {}, "error -32600"),
}


@pytest.mark.parametrize("way", NO_SERVERS)
async def test_s32_what_is_no_mcp_server_is_told_as_such(way: str) -> None:
    status, body, headers, message = NO_SERVERS[way]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=headers)

    async with hosting(answer) as origin:
        assert message in (await refused(Ephemeral("there", f"{origin}/mcp"))).message


async def test_s32_an_old_server_that_refuses_what_is_posted_is_lost_at_once() -> None:
    async def old(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=405)
        response = web.StreamResponse(headers=EVENTS)
        await response.prepare(request)
        await response.write(b"event: endpoint\ndata: /post\n\n")
        await asyncio.sleep(600)
        return response

    begun = time.monotonic()
    async with hosting(old) as origin:
        assert "status 405" in (await refused(Ephemeral("there", f"{origin}/sse"), connect_seconds=60)).message
    assert time.monotonic() - begun < 20


async def test_nobody_there_and_a_name_that_nobody_knows() -> None:
    async with calling(three) as host:
        origin = host.url
    for url, message in ((origin, "nothing listens there"), ("http://nobody.invalid/mcp", "name of the host")):
        assert message in (await refused(Ephemeral("there", url))).message
