"""Request bodies, with a size and a deadline.

aiohttp gives a body no deadline and would inflate a compressed one. Here a body may be so long, may pause so long, and
must arrive at a thousand bytes a second once a third of that pause has passed. The permission to send it
(100-continue) is given here, after all other checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import TypeVar

from aiohttp import HttpVersion11, StreamReader, web
from pydantic import BaseModel, ValidationError

from llamarunner.config import ServerSettings
from llamarunner.dialects import strict_json
from llamarunner.errors import InvalidRequest, PayloadTooLarge, RequestTimeout, UnsupportedMedia
from llamarunner.server.connection import Connection

B = TypeVar("B", bound=BaseModel)

MB = 1_000_000
BYTES_PER_SECOND = 1000
MAX_SHOWN_PARAM = 100
MOST_ITEMS = 256  # in each list, object and body that pydantic judges: it makes an object of every fault
MAX_FRAMING = 16_384  # bytes that frame chunks, beyond sixteen for each byte of the body


class BodyCutShort(InvalidRequest):
    """The client closed the connection, or broke the framing, before the end."""


async def read_object(request: web.Request, settings: ServerSettings) -> tuple[bytes, dict[str, object]]:
    """Read a JSON object; returns its bytes too, which can be passed on as they are.

    Raises InvalidRequest, PayloadTooLarge, UnsupportedMedia or RequestTimeout.
    """
    check_type(request)
    body = await read(request, settings)
    return body, strict_json.loads_object(body)


def validated(kind: type[B], raw: bytes) -> B:
    """Read a body as a model. Raises InvalidRequest that names the first field at fault."""
    check_bounds(strict_json.loads_object(raw))
    try:
        return kind.model_validate_json(raw, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]]
    param = "".join(parts).removeprefix(".")[:MAX_SHOWN_PARAM]
    if fault["type"] == "extra_forbidden":
        raise InvalidRequest(f"'{param}' is not known here; known are {', '.join(kind.model_fields)}.", param=param)
    if fault["type"] == "missing":
        raise InvalidRequest(f"'{param}' is missing.", param=param)
    message = fault["msg"]
    raise InvalidRequest(f"'{param}' is wrong: {message[:1].lower()}{message[1:]}.", param=param)


def check_bounds(document: Mapping[str, object]) -> None:
    """Refuse what has so many values that to judge them all would take long. Raises InvalidRequest."""
    if len(document) > MOST_ITEMS:
        raise InvalidRequest(f"The request body has more than {MOST_ITEMS} fields.")
    for name, value in document.items():
        if isinstance(value, list | dict) and len(value) > MOST_ITEMS:
            param = name[:MAX_SHOWN_PARAM]
            raise InvalidRequest(f"'{param}' has more than {MOST_ITEMS} items.", param=param)


async def read(request: web.Request, settings: ServerSettings) -> bytes:
    """Read the whole body within the limits of the settings."""
    limit = settings.max_body_mb * MB
    check_encoding(request)
    if (request.content_length or 0) > limit:
        raise _too_large(settings)
    if not request.can_read_body:
        return b""
    if request.content.is_eof():
        body = request.content.read_nowait()
    else:
        give_permission(request)
        body = await _collect(request, settings, limit)
    if "Transfer-Encoding" in request.headers:
        check_framing(request, len(body))
    return body


async def pieces(request: web.Request, settings: ServerSettings) -> AsyncGenerator[bytes, None]:
    """The body piece by piece, however long it is. Raises InvalidRequest, UnsupportedMedia or RequestTimeout."""
    check_encoding(request)
    give_permission(request)
    size = 0
    while True:
        try:
            async with asyncio.timeout(settings.body_idle_seconds):
                piece = await _next(request.content)
        except TimeoutError:
            raise RequestTimeout("The request body did not arrive in time.") from None
        if not piece:
            break
        size += len(piece)
        yield piece
    if "Transfer-Encoding" in request.headers:
        check_framing(request, size)


async def _collect(request: web.Request, settings: ServerSettings, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    start = loop.time()
    grace = settings.body_idle_seconds / 3
    try:
        async with asyncio.timeout(settings.body_idle_seconds) as scope:
            while chunk := await _next(request.content):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise _too_large(settings)
                slowest = start + max(grace, size / BYTES_PER_SECOND)
                scope.reschedule(min(loop.time() + settings.body_idle_seconds, slowest))
    except TimeoutError:
        raise RequestTimeout("The request body did not arrive in time.") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _next(content: StreamReader) -> bytes:
    try:
        return await content.readany()
    except Exception as error:  # aiohttp has many names for a broken body, and some are private
        raise BodyCutShort("The request body broke off or is not framed as HTTP demands.") from error


def check_framing(request: web.Request, size: int) -> None:
    """Refuse chunk extensions that are larger than any use of them."""
    connection = request.protocol
    if isinstance(connection, Connection) and connection.framing_bytes(request) > MAX_FRAMING + 16 * size:
        raise InvalidRequest("The chunks of the request body have extensions that are too long.")


def give_permission(request: web.Request) -> None:
    """Tell a client that waits for it to send the body."""
    expected = request.headers.get("Expect", "")
    if expected.lower() == "100-continue" and request.version >= HttpVersion11 and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def check_encoding(request: web.Request) -> None:
    """Refuse compressed bodies. Raises UnsupportedMedia."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMedia("Compressed request bodies are not accepted; send the body without Content-Encoding.")


def check_type(request: web.Request) -> None:
    """Refuse what a web page can send to any server without asking first, such as a form. Raises UnsupportedMedia."""
    if "Origin" in request.headers and request.content_type != "application/json":
        raise UnsupportedMedia("Requests from web pages must have the Content-Type application/json.")


def _too_large(settings: ServerSettings) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than the limit of {settings.max_body_mb} MB.")
