"""What every request passes, in this order:

    record   a request id, and what is told when it is over
    errors   whatever is raised further in becomes an answer in the caller's language
    hygiene  oddities of HTTP that two parsers might read differently are refused
    host     and then origin: no strangers' web pages
    key      if the door has keys; /health needs none. It may narrow the models that the request can see
    drain    while the server stops, nothing new begins
    limits   a client has its budget; probes and metrics are free

The first two are one middleware, the others the second: each costs a call on every request.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import time
from http import HTTPStatus

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.typedefs import Handler

from llamarunner.config import RateLimits
from llamarunner.dialects.anthropic import ANTHROPIC
from llamarunner.dialects.lmstudio import errors as lmstudio
from llamarunner.dialects.ollama.errors import OLLAMA
from llamarunner.dialects.openai import OPENAI
from llamarunner.dialects.wire import Dialect
from llamarunner.errors import (
    InvalidRequest,
    LlamaRunnerError,
    MethodNotAllowed,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    RouteNotFound,
    ServerError,
    ShuttingDown,
    UnsupportedMedia,
)
from llamarunner.server.drain import STOPPING
from llamarunner.server.record import CLIENT_GONE, RECORD, Record
from llamarunner.server.services import ACCOUNT, CLIENT, REQUEST_ID, TICKET, VIEW

log = logging.getLogger("llamarunner.server")

SPOKEN_VERSIONS = (HttpVersion11, HttpVersion10)
CLOSING = (ShuttingDown, RequestTimeout, PayloadTooLarge)  # what is left of the request is not worth reading
OPEN_PATHS = frozenset(
    {"/", "/health", "/lmstudio-greeting", "/lms-status"}
)  # probes: they tell nothing and change nothing
FREE_PATHS = OPEN_PATHS | {"/metrics"}  # of limits
READABLE_HEADERS = (  # by pages of other sites, besides those that the standard lists
    "X-Request-ID, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset, X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests"
)
QUOTED = re.compile(r"""[\n:'"]|\bb['"]""")  # here the parser begins to quote the request
PREFLIGHT_SECONDS = "600"
CHANNEL_PATH = "/v1/ws"
SDK_PATHS = frozenset(  # the websockets of LM Studio's SDKs, whose first frame has the key
    f"/{name}" for name in ("llm", "embedding", "system", "files", "repository", "diagnostics", "plugins", "runtime")
)


@web.middleware
async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, answer what goes wrong, and tell about it when it is over."""
    view = request.app[VIEW]
    request_id = request[REQUEST_ID] = _request_id(request)
    path = request.raw_path.partition("?")[0]
    given = Record(request_id, view.name, request.remote or "", request.method, path)
    with view.services.records.open(given) as request[RECORD]:
        response = await _answered(request, handler)
        given.status = given.status or (response.status if request.transport is not None else CLIENT_GONE)
        return response


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let requests in by the door's rules."""
    view = request.app[VIEW]
    rules, headers = view.rules, request.headers
    client = request[CLIENT] = request[RECORD].client = view.origins.client(request.remote, headers)
    account = request[ACCOUNT] = view.account(client)
    check_hygiene(request)
    host = headers.get("Host", "")
    rules.check_host(host)
    origin = headers.get("Origin")
    if origin is not None:
        rules.check_origin(origin, host)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in headers and rules.allows_origin(origin):
            return _preflight(request)
    if request.path not in OPEN_PATHS and not (request.path in SDK_PATHS and view.name == "lmstudio"):
        account = request[ACCOUNT] = view.recognise(client, headers)
        if request.method == "POST" and view.services.drain.active:
            raise ShuttingDown(STOPPING, retry_after=5)
    if request.path in FREE_PATHS:
        return await handler(request)
    with view.limiter.admit(account, time.monotonic_ns()) as request[TICKET]:
        request[RECORD].admitted = True
        return await handler(request)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer what all answers carry."""
    view, headers = request.app[VIEW], response.headers
    headers["X-Request-ID"] = request[REQUEST_ID]
    headers["Server"] = "LlamaRunner"
    if "Upgrade" in request.headers and response.status != HTTPStatus.SWITCHING_PROTOCOLS:
        response.force_close()  # what follows was kept for another protocol, and is never read
        headers["Connection"] = "close"
    standing = view.limiter.standing(request[ACCOUNT], time.monotonic_ns())
    if standing is not None:
        headers.update(standing.headers())
    origin = request.headers.get("Origin")
    if origin is not None and view.rules.allows_origin(origin):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = READABLE_HEADERS
        headers["Vary"] = "Origin"
    elif view.door.cors_origins:
        headers["Vary"] = "Origin"


def check_hygiene(request: web.Request) -> None:
    """Refuse what is legal nowhere, or would be read otherwise by another parser. Raises InvalidRequest."""
    if request.version not in SPOKEN_VERSIONS:
        raise InvalidRequest("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if not request.raw_path.startswith("/") or request.raw_path.startswith("//"):
        raise InvalidRequest("The request target must be a path.")
    headers = request.headers
    coding = headers.getall("Transfer-Encoding", None)
    if coding and (len(coding) > 1 or coding[0].lower() != "chunked" or request.version is not HttpVersion11):
        raise InvalidRequest("The only Transfer-Encoding understood is chunked, in HTTP/1.1.")
    if _upgrades(request) & {"websocket", "tcp"} and not _opens_channel(request):
        raise InvalidRequest("This path cannot be upgraded to another protocol.")
    for value in headers.values():
        if not value.isascii():
            _check_utf8(value)


def render(request: web.Request, error: LlamaRunnerError, dialect: Dialect | None = None) -> web.Response:
    """Say an error in the language of the path that was asked, unless in another."""
    dialect = dialect or dialect_of(request)
    body = dialect.error_body(error, request[REQUEST_ID])
    response = web.Response(status=dialect.status_of(error), body=body, headers={"Content-Type": dialect.media})
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, CLOSING) or not _is_well_framed(request):
        response.force_close()
    return response


def dialect_of(request: web.Request) -> Dialect:
    path = request.path.replace("/v1/v1/", "/v1/", 1)
    if path.startswith("/v1/messages") or (path.startswith("/v1/models") and "anthropic-version" in request.headers):
        return ANTHROPIC
    if request.app[VIEW].name == "ollama":
        return OLLAMA if path.startswith("/api/") else OPENAI
    return (
        lmstudio.V0 if path.startswith("/api/v0/") else lmstudio.NATIVE if path.startswith("/api/") else lmstudio.ON_V1
    )


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except LlamaRunnerError as error:
        failure = error
    except web.HTTPException as raised:
        failure = _translated(raised)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("%s %s %s: unexpected error", request[REQUEST_ID], request.method, request[RECORD].path)
        failure = ServerError(f"The server met an unexpected error; its log has it under {request[REQUEST_ID]}.")
    if isinstance(failure, RateLimited):
        view = request.app[VIEW]
        view.services.metrics.refused(view.name, failure.limit)
        if failure.limit in RateLimits.model_fields:
            failure.message += view.way_out(request[CLIENT], request[ACCOUNT])
    if request.writer.output_size > 0:  # an answer has begun, and must not be followed by a second one
        request[RECORD].status = failure.status
        raise ConnectionAbortedError
    return render(request, failure)


def _translated(raised: web.HTTPException) -> LlamaRunnerError:
    kinds: dict[int, type[LlamaRunnerError]] = {
        404: RouteNotFound,
        405: MethodNotAllowed,
        413: PayloadTooLarge,
        415: UnsupportedMedia,
    }
    kind = kinds.get(raised.status, InvalidRequest if raised.status < 500 else ServerError)
    return kind(raised.reason)


def _upgrades(request: web.Request) -> set[str]:
    """To which protocols a client would change."""
    return {name.strip().lower() for line in request.headers.getall("Upgrade", ()) for name in line.split(",")}


def _opens_channel(request: web.Request) -> bool:
    """Tell whether a request may become a websocket: a GET without a body, which could hide another request."""
    headers = request.headers
    return (
        (request.method, request.version) == ("GET", HttpVersion11)
        and (request.path == CHANNEL_PATH or request.path in SDK_PATHS)
        and headers.getall("Upgrade") == [headers["Upgrade"]]
        and headers["Upgrade"].lower() == "websocket"
        and "Transfer-Encoding" not in headers
        and headers.get("Content-Length", "0") == "0"
    )


def _preflight(request: web.Request) -> web.Response:
    asked = request.headers.get("Access-Control-Request-Headers", "")
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": asked or "Authorization, Content-Type",
        "Access-Control-Max-Age": PREFLIGHT_SECONDS,
    }
    return web.Response(status=204, headers=headers)


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-ID")
    if given and len(given) <= 128 and given.isascii() and given.isprintable() and " " not in given:
        return given
    return secrets.token_hex(8)


def _is_well_framed(request: web.Request) -> bool:
    """Tell whether the connection can be used again after a refusal."""
    return (
        request.version in SPOKEN_VERSIONS
        and "Transfer-Encoding" not in request.headers
        and "Upgrade" not in request.headers
    )


def _check_utf8(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("A header is not valid UTF-8.") from None


def unreadable(request: web.BaseRequest, status: int, message: str | None) -> web.Response:
    """Answer a request that never became one, or a failure outside all guards."""
    request_id = secrets.token_hex(8)
    if status < 500:
        error: LlamaRunnerError = InvalidRequest(f"The request is not valid HTTP: {_without_quotes(message)}")
    else:
        error = ServerError(f"The server met an unexpected error; its log has it under {request_id}.")
    log.info("%s %s: unreadable request: %s", request_id, request.remote, error.message)
    headers = {"X-Request-ID": request_id, "Server": "LlamaRunner"}
    response = web.Response(
        status=error.status, body=OPENAI.error_body(error, request_id), content_type="application/json", headers=headers
    )
    response.force_close()
    return response


def _without_quotes(message: str | None) -> str:
    """Say what the parser says, but nothing that it quotes: that may be a key."""
    if message and message.startswith("Got more than"):
        return "the request line or a header is too long."
    words = QUOTED.split((message or "").replace("'Host'", "Host"), maxsplit=1)[0].strip()
    return f"{words or 'it cannot be read'}."


def turned_away(error: LlamaRunnerError) -> bytes:
    """Say to a connection that is not let in what is wrong, whatever it was about to ask."""
    request_id = secrets.token_hex(8)
    body = OPENAI.error_body(error, request_id)
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: {math.ceil(error.retry_after or 1)}\r\n"
        f"X-Request-ID: {request_id}\r\nServer: LlamaRunner\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
