"""Where LM Studio's SDKs and its command line look: how they find the server, and a websocket for each namespace.

    GET /lmstudio-greeting   {"lmstudio": true}
    GET /lms-status          {"package": "llamarunner", "version": …}
    /llm /embedding /system /files /repository /diagnostics /plugins /runtime

The upgrade is one request for the limits, and over with it; predictions and loads are counted each. The sockets that a
client may keep open are counted apart, so many for each namespace as it may have requests at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.typedefs import Handler

from llamarunner.config import NO_LIMITS
from llamarunner.dialects import strict_json
from llamarunner.dialects.lmstudio import sdk_frames as frames
from llamarunner.errors import InvalidRequest, LlamaRunnerError, RateLimited, ShuttingDown, Unauthorized
from llamarunner.limits import Account, Ticket
from llamarunner.server import (
    sdk_diagnostics,
    sdk_files,
    sdk_loading,
    sdk_models,
    sdk_predict,
    sdk_repository,
    sdk_system,
    sdk_text,
)
from llamarunner.server.body import MB
from llamarunner.server.connection import Connection
from llamarunner.server.drain import STOPPING
from llamarunner.server.record import RECORD
from llamarunner.server.sdk_endpoints import Caller, Namespace
from llamarunner.server.sdk_socket import CLOSE_SECONDS, HELLO_SECONDS, Socket, credential
from llamarunner.server.services import ACCOUNT, CLIENT, TICKET, VIEW, View

TEXTS = 4  # of one socket that are worked on at the same time
HELLO_BYTES = 8192  # more than that a client does not send before it is known

NAMESPACES: Mapping[str, Namespace] = {
    "system": Namespace(sdk_system.RPCS, sdk_system.CHANNELS),
    "llm": Namespace(
        {**sdk_models.RPCS, **sdk_text.RPCS, **sdk_text.LLM_RPCS}, {**sdk_loading.CHANNELS, **sdk_predict.CHANNELS}
    ),
    "embedding": Namespace({**sdk_models.RPCS, **sdk_text.RPCS, **sdk_text.EMBEDDING_RPCS}, sdk_loading.CHANNELS),
    "files": Namespace(sdk_files.RPCS),
    "repository": Namespace(sdk_repository.RPCS, sdk_repository.CHANNELS),
    "diagnostics": Namespace(channels=sdk_diagnostics.CHANNELS),
    "plugins": Namespace(),
    "runtime": Namespace(),
}


async def greeting(request: web.Request) -> web.Response:
    """Say that this is what the SDKs look for."""
    return _json({"lmstudio": True})


async def status(request: web.Request) -> web.Response:
    """Say who serves, to the command line."""
    return _json({"package": "llamarunner", "version": request.app[VIEW].services.version})


def _socket(name: str) -> Handler:
    async def socket(request: web.Request) -> web.StreamResponse:
        """Open the websocket of a namespace, and serve it until either side closes it."""
        view = request.app[VIEW]
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise InvalidRequest("This path speaks WebSocket only (RFC 6455): send a GET with 'Upgrade: websocket'.")
        if view.services.drain.active:
            raise ShuttingDown(STOPPING, retry_after=5)
        with _seat(view, request[ACCOUNT]):
            return await _served(request, name)

    return socket


async def _served(request: web.Request, name: str) -> web.StreamResponse:
    view = request.app[VIEW]
    socket = web.WebSocketResponse(
        timeout=CLOSE_SECONDS,
        autoping=False,  # pings count as messages
        compress=False,  # pieces of text are short, and a compressed message can be a bomb
        max_msg_size=view.services.settings.server.max_body_mb * MB,
        writer_limit=0,  # every frame waits until the one before is gone
    )
    try:
        await socket.prepare(request)
    except web.HTTPBadRequest as error:
        raise InvalidRequest(f"The websocket cannot be opened: {error.text}") from None
    request[RECORD].status = socket.status  # however it ends
    request[TICKET].release()
    with contextlib.ExitStack() as stack:
        caller = await _met(request, socket, name, stack)
        if caller is not None:
            opened = Socket(request, socket, caller, NAMESPACES[name])
            stack.enter_context(view.services.drain.hosting(opened.leave))
            await opened.serve()
    return socket


def _seat(view: View, account: Account) -> Ticket:
    """Count an open websocket. Raises RateLimited."""
    most = account.limits.concurrent_requests
    most = None if most is None else most * len(NAMESPACES)
    seats = Account(f"sdk {account.client}", NO_LIMITS.model_copy(update={"concurrent_requests": most}))
    try:
        return view.channels.admit(seats, time.monotonic_ns())
    except RateLimited as error:
        raise RateLimited(f"Too many open websockets; the limit is {most}.", retry_after=error.retry_after) from None


async def _met(
    request: web.Request, socket: web.WebSocketResponse, name: str, stack: contextlib.ExitStack
) -> Caller | None:
    """Let a client say who it is; None, and the socket is closed, if it may not come in."""
    python = request.headers.get("User-Agent", "").startswith("python-httpx")
    try:
        guarded = request.protocol.channel if isinstance(request.protocol, Connection) else None
        if guarded is not None:
            guarded.allowance = HELLO_BYTES
        hello = frames.hello(await _first(socket))
        python = python or hello.of_python
        if guarded is not None:
            guarded.allowance = None
        caller = _caller(request, name, hello, stack)
    except LlamaRunnerError as error:
        await _turned_away(socket, frames.unwelcome(error.message, python))
        return None
    except ConnectionError:
        return None
    await socket.send_frame(frames.welcome(), WSMsgType.TEXT)
    return caller


async def _first(socket: web.WebSocketResponse) -> str:
    """The first frame that a client sends. Raises InvalidRequest, or ConnectionError if none comes."""
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            while (message := await socket.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
                pass
    except TimeoutError:
        raise InvalidRequest("Nothing came to tell who the client is.") from None
    if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        raise InvalidRequest("Frames must be texts in JSON.")
    raise ConnectionResetError("the client is gone")


def _caller(request: web.Request, name: str, hello: frames.Hello, stack: contextlib.ExitStack) -> Caller:
    """Check the key, if the door has some, and the passkey. Raises Unauthorized, InvalidRequest or RateLimited."""
    view, client = request.app[VIEW], request[CLIENT]
    headers = credential(hello, request.headers)
    try:
        account = view.recognise(client, headers)
    except Unauthorized as error:
        raise error if headers else Unauthorized(frames.NO_TOKEN) from None
    guest = stack.enter_context(view.guests.hosting(hello))
    texts = min(TEXTS, account.limits.concurrent_requests or TEXTS)
    return Caller(view, client, account, guest, name, headers, asyncio.Semaphore(texts))


async def _turned_away(socket: web.WebSocketResponse, refusal: bytes) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(2 * CLOSE_SECONDS):
            await socket.send_frame(refusal, WSMsgType.TEXT)
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"Not let in.")


def _json(document: object) -> web.Response:
    return web.Response(body=strict_json.dumps(document), content_type="application/json")


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/lmstudio-greeting"): greeting,
    ("GET", "/lms-status"): status,
    **{("GET", f"/{name}"): _socket(name) for name in NAMESPACES},
}
