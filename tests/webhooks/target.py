"""A webhook's target: a real HTTP server that answers as it is told, and keeps what it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook

from tests.conftest import eventually

Behaviour = int | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Letter:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def event(self) -> str:
        return str(self.document["event"])

    def verify(self, secret: str) -> None:
        """Raises unless it was signed with the secret, just now."""
        Webhook(secret).verify(self.body.decode(), self.headers)


@dataclass
class Target:
    """Answers requests with the next of `script`, and then with `behaviour`."""

    port: int = 0
    behaviour: Behaviour = 200
    script: list[Behaviour] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def to(self, path: str) -> list[Letter]:
        return [letter for letter in self.letters if letter.path == path]

    async def wait(self, count: int, seconds: float = 10) -> list[Letter]:
        """Wait until so many have come."""
        await eventually(lambda: len(self.letters) >= count, seconds)
        return self.letters

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.letters.append(Letter(request.path, headers, await request.read()))
        behaviour = self.script.pop(0) if self.script else self.behaviour
        if isinstance(behaviour, int):
            return web.Response(status=behaviour, text=f"status {behaviour}")
        return await behaviour(request)


@asynccontextmanager
async def opened(port: int = 0) -> AsyncIterator[Target]:
    """Listen on this machine; leaving breaks off what is under way."""
    target, app = Target(), web.Application()
    app.router.add_route("*", "/{path:.*}", target.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        target.port = runner.addresses[0][1]
        yield target
    finally:
        await runner.cleanup()


async def hang(request: web.Request) -> web.StreamResponse:
    """Answer never."""
    await asyncio.Event().wait()
    raise AssertionError


async def redirect(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/inside"})


async def endless(request: web.Request) -> web.StreamResponse:
    """Answer 200 with a body that has no end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


async def drip(request: web.Request) -> web.StreamResponse:
    """Answer 200 with a body that comes byte by byte."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.02)
