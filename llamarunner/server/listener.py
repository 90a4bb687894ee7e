"""One door: its routes, its guards, its sockets, and how its connections are treated.

app = listener.build(door, "ollama", services)
runner = listener.runner(app)
await runner.setup()
for sock in listener.bind(door.host, door.port):
    await listener.Site(runner, sock).start()
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.config import Door
from llamarunner.dialects.lmstudio.errors import V0, unexpected
from llamarunner.errors import MethodNotAllowed, RouteNotFound
from llamarunner.server import (
    anthropic_api,
    audio_api,
    channel,
    guards,
    library_api,
    lmstudio_chat,
    lmstudio_downloads,
    lmstudio_models,
    lmstudio_openai,
    lmstudio_v0,
    logs_api,
    manage_api,
    metrics_api,
    models_api,
    ollama_api,
    openai_api,
    openapi,
    responses_api,
    sdk_api,
    webhooks_api,
    wrapper_api,
)
from llamarunner.server.connection import OPTIONS, Site, check_parser
from llamarunner.server.services import VIEW, Services, View

MODEL = "/v1/models/{id:.+(?<!/start)(?<!/stop)}"  # those are for POST
SEND_BUFFER = 2**16  # what a client that reads nothing can make the kernel keep
SHUTDOWN_SECONDS = 2  # aiohttp spends it twice


def build(door: Door, name: str, services: Services) -> web.Application:
    """Make the application of one door; `name` is `ollama`, `lmstudio` or `wrapper`."""
    app = web.Application(middlewares=[guards.record, guards.admit])
    app[VIEW] = View(name, door, services)
    app.on_response_prepare.append(guards.stamp)
    for (method, path), handler in _routes(name).items():
        app.router.add_route(method, path, handler, expect_handler=_no_promise)
    app.router.add_route("*", "/{path:.*}", _unrouted, expect_handler=_no_promise)
    return app


def runner(app: web.Application) -> web.AppRunner:
    """Make the runner of a door. A client's hang-up cancels its handler, in tests as in production.

    Raises ServerError where aiohttp cannot be trusted to parse HTTP.
    """
    check_parser()
    return web.AppRunner(app, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS, **OPTIONS)


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind every address of a host, all to one port. Raises OSError if it is taken or no address of ours."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            chosen = bound[0].getsockname()[1] if bound else port
            bound.append(_bind_one(socket.socket(family, kind, protocol), (address[0], chosen, *address[2:])))
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


@asynccontextmanager
async def opened(door: Door, name: str, services: Services, sockets: Sequence[socket.socket]) -> AsyncIterator[str]:
    """Serve a door on bound sockets and give its URL; leaving ends what is still under way within four seconds."""
    app = build(door, name, services)
    app[VIEW].ports = [sock.getsockname()[1] for sock in sockets]
    door_runner = runner(app)
    await door_runner.setup()
    try:
        sites = [Site(door_runner, sock) for sock in sockets]
        for site in sites:
            await site.start()
        yield sites[0].name
    finally:
        await door_runner.cleanup()


def _routes(name: str) -> dict[tuple[str, str], Handler]:
    routes: dict[tuple[str, str], Handler] = {
        ("GET", "/health"): manage_api.health,
        ("GET", "/openapi.json"): openapi.document,
        ("GET", "/metrics"): metrics_api.metrics,
        ("GET", "/v1/system/status"): manage_api.system_status,
        ("GET", "/v1/server/info"): manage_api.server_info,
        ("GET", "/v1/models"): openai_api.list_models,
        ("GET", "/v1/models/{id:.+}/status"): models_api.status,
        ("GET", "/v1/models/{id:.+}/info"): models_api.info,
        ("GET", "/v1/models/{id:.+}/logs"): logs_api.logs,
        ("POST", "/v1/models/{id:.+}/start"): models_api.start,
        ("POST", "/v1/models/{id:.+}/stop"): models_api.stop,
        ("GET", MODEL): openai_api.retrieve_model,
        ("GET", guards.CHANNEL_PATH): channel.channel,
        ("POST", "/v1/audio/transcriptions"): audio_api.transcribe,
        ("POST", "/v1/audio/translations"): audio_api.translate,
    }
    for path, ask in (openai_api.PATHS | anthropic_api.PATHS).items():
        routes["POST", path] = openai_api.asking(path, ask)
        if path.startswith("/v1/"):  # clients add it to a base URL that ends in it
            routes["POST", f"/v1{path}"] = routes["POST", path]
    routes |= webhooks_api.ROUTES | responses_api.ROUTES
    again = [("GET", "/v1/models"), ("GET", MODEL), *responses_api.ROUTES]
    routes |= {(method, f"/v1{path}"): routes[method, path] for method, path in again}
    if name == "ollama":
        routes |= {("GET", "/"): manage_api.ollama_greeting} | ollama_api.ROUTES | library_api.ROUTES
    if name == "lmstudio":
        routes |= lmstudio_openai.ROUTES | lmstudio_v0.ROUTES | lmstudio_chat.ROUTES
        routes |= lmstudio_models.ROUTES | lmstudio_downloads.ROUTES
        routes |= sdk_api.ROUTES
    if name in ("lmstudio", "wrapper"):
        routes |= wrapper_api.ROUTES
    return routes | {("HEAD", path): handler for (method, path), handler in routes.items() if method == "GET"}


async def _unrouted(request: web.Request) -> web.StreamResponse:
    """Tell an unknown path from a known one that was asked in the wrong way, or with too many slashes."""
    allowed = await _methods_of(request)
    if request.app[VIEW].name == "ollama":
        if tidy := await _tidied(request):
            return web.Response(status=301 if request.method in ("GET", "HEAD") else 307, headers={"Location": tidy})
        if not request.path.startswith("/v1/"):
            return _as_ollama_says(allowed)
    if request.app[VIEW].name == "lmstudio":
        return _as_lmstudio_says(request, allowed)
    if not allowed:
        raise RouteNotFound(f"There is nothing at {request.path[:200]}.")
    error = MethodNotAllowed(f"{request.method[:20]} is not possible here; use {' or '.join(allowed)}.")
    response = guards.render(request, error)
    response.headers["Allow"] = ", ".join(allowed)
    return response


def _as_ollama_says(allowed: Sequence[str]) -> web.Response:
    if not allowed:
        return web.Response(status=404, text="404 page not found")
    return web.Response(status=405, text="405 method not allowed", headers={"Allow": ", ".join(allowed)})


async def _tidied(request: web.Request) -> str | None:
    """The path of ours that is meant by one with slashes at its end or several in a row; Ollama's router leads there.

    It begins with one slash, so it never leads to another host.
    """
    path, mark, query = request.raw_path.partition("?")
    tidy = re.sub("//+", "/", path).rstrip("/")
    if tidy == path or not tidy:
        return None
    found = await request.app.router.resolve(request.clone(rel_url=tidy))
    return tidy + mark + query if found.handler is not _unrouted else None


def _as_lmstudio_says(request: web.Request, allowed: Sequence[str]) -> web.Response:
    error = unexpected(request.method, request.path, known=bool(allowed))
    ours = allowed or request.path.startswith("/v1/")
    response = guards.render(request, error, V0 if request.path.startswith("/api/") or not ours else None)
    if allowed:
        response.headers["Allow"] = ", ".join(allowed)
    return response


async def _methods_of(request: web.Request) -> list[str]:
    allowed: list[str] = []
    for resource in request.app.router.resources():
        match, methods = await resource.resolve(request)
        if match is None:
            allowed += methods
    return sorted(set(allowed))


async def _no_promise(request: web.Request) -> None:
    """Leave `Expect: 100-continue` unanswered; `body.read` does it when all checks are passed."""


def _bind_one(sock: socket.socket, address: tuple[Any, ...]) -> socket.socket:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
