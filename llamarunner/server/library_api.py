"""Ollama's paths that change which models there are: pull, create, copy, delete, and the blobs to create them from.

All are for those who may manage models, and for names that the door shows. Progress is told in lines of JSON; nothing
is sent before there is a first line, so a mistake until then has its status. A pull ends with the client that waits
for it, or when the server stops; the next one goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.dialects import strict_json
from llamarunner.dialects.ollama import names
from llamarunner.dialects.ollama.errors import OLLAMA
from llamarunner.dialects.ollama.requests import CopyRequest, CreateRequest, ModelRequest, PullRequest
from llamarunner.errors import Forbidden, InvalidRequest, LlamaRunnerError, ModelNotFound, RequestTimeout, ShuttingDown
from llamarunner.library import Line, NotInstalled, Recipe
from llamarunner.server import body, relay
from llamarunner.server.connection import drop
from llamarunner.server.drain import STOPPING
from llamarunner.server.ollama_answer import NDJSON
from llamarunner.server.ollama_asked import read
from llamarunner.server.record import RECORD
from llamarunner.server.services import CLIENT, REQUEST_ID, TICKET, VIEW, View
from llamarunner.server.watch import Patience, Phase, Watch

JSON = "application/json"


async def pull(request: web.Request) -> web.StreamResponse:
    """Bring a model here, from Hugging Face or a registry."""
    asked = await read(request, PullRequest)
    view = _managed(request)
    check_shown(view, asked.named)
    lines = view.services.library.pull(asked.named, insecure=asked.insecure)
    return await _tell(request, lines, asked.stream)


async def create(request: web.Request) -> web.StreamResponse:
    """Make a model of another one, or of uploaded files."""
    asked = await read(request, CreateRequest)
    view = _managed(request)
    check_shown(view, asked.named)
    if asked.from_:
        _check_source(view, asked.from_, f"model '{asked.from_[:200]}' not found")
    return await _tell(request, view.services.library.create(_recipe(asked)), asked.stream)


async def copy(request: web.Request) -> web.StreamResponse:
    """Give a model one more name."""
    asked = await read(request, CopyRequest)
    view = _managed(request)
    _check_source(view, asked.source, f'model "{asked.source[:200]}" not found')
    check_shown(view, asked.destination)
    await view.services.library.copy(asked.source, asked.destination)
    return web.Response()


async def delete(request: web.Request) -> web.StreamResponse:
    """Delete a model that was pulled, created or copied here."""
    asked = await read(request, ModelRequest)
    view = _managed(request)
    _check_source(view, asked.named, f"model '{asked.named[:200]}' not found")
    await view.services.library.delete(asked.named)
    return web.Response()


async def has_blob(request: web.Request) -> web.StreamResponse:
    """Tell whether a file is here; its name is its digest."""
    digest = request.match_info["digest"]
    if not await request.app[VIEW].services.library.has_blob(digest):
        raise NotInstalled(f'blob "{digest[:100]}" not found')
    return web.Response()


async def put_blob(request: web.Request) -> web.StreamResponse:
    """Take a file, of any size, to create a model of."""
    request[RECORD].dialect = OLLAMA.name
    services = _managed(request).services
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    async with watch, aclosing(body.pieces(request, services.settings.server)) as pieces:
        watch.phase(Phase.NEWS)  # a body has its own deadlines
        with services.drain.hosting(lambda: watch.end(ShuttingDown(STOPPING))):
            new = await services.library.put_blob(request.match_info["digest"], pieces, request.content_length)
            await _skip(pieces)
    return web.Response(status=201 if new else 200)


async def _skip(pieces: AsyncIterator[bytes]) -> None:
    """Let a client send what is not needed: some notice an answer only when they have sent all."""
    async for _ in pieces:
        pass


def _managed(request: web.Request) -> View:
    view = request.app[VIEW]
    view.check_management(request[CLIENT])
    return view


def check_shown(view: View, name: str) -> None:
    """Refuse to make a model that this door or key would not show. What is no name the library refuses."""
    if not _shows_name(view, name):
        raise Forbidden("Models of that name are not to be seen through this door.", param="model")


def _check_source(view: View, name: str, refusal: str) -> None:
    """Refuse to touch a model that this door or key does not show, as if it were not there."""
    try:
        shown = view.shows(view.services.catalog.find(name))
    except ModelNotFound:  # by this spelling; the library may know it
        shown = _shows_name(view, name)
    if not shown:
        raise NotInstalled(refusal, param="model")


def _shows_name(view: View, name: str) -> bool:
    """Whether the door would show a model of our library of that name; also for what is no name."""
    parsed = names.parse(name)
    return parsed is None or view.shows_id(parsed.short.lower().removesuffix(f":{names.TAG}"))


def _recipe(asked: CreateRequest) -> Recipe:
    licenses = [asked.license] if isinstance(asked.license, str) else asked.license or []
    if not isinstance(licenses, list) or not all(isinstance(text, str) for text in licenses):
        raise InvalidRequest("license must be a text, or a list of texts", param="license")
    return Recipe(
        name=asked.named,
        from_=asked.from_,
        files=asked.files,
        adapters=asked.adapters,
        template=asked.template,
        system=asked.system,
        license=tuple(str(text) for text in licenses if text),
        parameters=asked.parameters,
        messages=tuple(message.model_dump(exclude_defaults=True) for message in asked.messages),
        quantize=asked.quantize or asked.quantization,
    )


async def _tell(request: web.Request, lines: AsyncGenerator[Line, None], stream: bool) -> web.StreamResponse:
    """Answer with all lines as they come, or with the last. The work ends when the server stops."""
    services = request.app[VIEW].services
    telling = _Telling(request, stream)
    try:
        async with Watch(Patience.of(services.settings.server, pulse=False)) as watch, aclosing(lines):
            with services.drain.hosting(lambda: watch.end(ShuttingDown(STOPPING))):
                watch.phase(Phase.NEWS)
                async for line in lines:
                    await telling.say(line, watch)
    except RequestTimeout as error:
        request[RECORD].status = error.status
        drop(request)
    except LlamaRunnerError as error:
        await telling.fail(error)
    if stream:
        return telling.response
    return await relay.whole(request, strict_json.dumps(telling.last), JSON, services)


class _Telling:
    """Lines on their way to a client."""

    def __init__(self, request: web.Request, stream: bool) -> None:
        self._request = request
        self._stream = stream
        self.response = web.StreamResponse(headers={"Content-Type": NDJSON, **relay.STREAM_HEADERS})
        self.last: Line = {}
        if stream:
            request[TICKET].begin_stream()
            request[RECORD].stream = True

    async def say(self, line: Line, watch: Watch) -> None:
        self.last = line
        if self._stream:
            watch.phase(Phase.CLIENT)
            if not self.response.prepared:
                await self.response.prepare(self._request)
            await self.response.write(strict_json.dumps(line) + b"\n")
            watch.phase(Phase.NEWS)

    async def fail(self, error: LlamaRunnerError) -> None:
        """Say an error as the last line; raise it if nothing has been said."""
        if not self.response.prepared:
            raise error
        self._request[RECORD].status = OLLAMA.status_of(error)
        settings = self._request.app[VIEW].services.settings.server
        try:
            async with asyncio.timeout(settings.write_stall_seconds):
                await self.response.write(OLLAMA.error_event(error, self._request[REQUEST_ID]))
        except TimeoutError:
            drop(self._request)


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/api/pull"): pull,
    ("POST", "/api/create"): create,
    ("POST", "/api/copy"): copy,
    ("DELETE", "/api/delete"): delete,
    ("HEAD", "/api/blobs/{digest}"): has_blob,
    ("POST", "/api/blobs/{digest}"): put_blob,
}
