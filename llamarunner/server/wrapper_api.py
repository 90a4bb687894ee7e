"""The wrapper API, `/api/lmstudio/*`: an easy way to LM Studio's models, on its door and on one of its own.

The models are this server's, or those of another LM Studio that the owner names (`wrapper.lmstudio_host`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.dialects import strict_json, usage
from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.lmstudio import wrapper
from llamarunner.dialects.lmstudio.errors import MEDIA, NATIVE, FieldRequired, InvalidValue
from llamarunner.dialects.lmstudio.wrapper import (
    KINDS,
    Kind,
    ToolsRequest,
    VisionRequest,
    WrapperHealth,
    WrapperInstances,
    WrapperLoad,
    WrapperModels,
)
from llamarunner.dialects.sse import DONE, Splitter
from llamarunner.dialects.wire import sse
from llamarunner.errors import BackendFailed, LlamaRunnerError, ModelNotFound
from llamarunner.server import body, relay, wrapper_images
from llamarunner.server.drain import STOPPING
from llamarunner.server.lmstudio_asked import answer, read
from llamarunner.server.openai_api import wants_stream
from llamarunner.server.record import RECORD
from llamarunner.server.services import CLIENT, TICKET, VIEW, Services
from llamarunner.server.watch import Patience, Phase, Watch
from llamarunner.server.wrapper_here import Backend, Here, Opening, Source
from llamarunner.server.wrapper_remote import Remote

Change = Callable[[dict[str, Any]], dict[str, Any]]

ROOT = "/api/lmstudio"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


async def health(request: web.Request) -> web.StreamResponse:
    """Say whether the models can be asked: 200 healthy, or 503 unhealthy, and why."""
    services = request.app[VIEW].services
    behind = backend(request)
    name: Literal["llamarunner", "lmstudio"] = "llamarunner" if isinstance(behind, Here) else "lmstudio"
    try:
        models = await behind.models()
        told = WrapperHealth(
            "healthy", name, "The models answer.", len(models), sum(one.model.loaded for one in models)
        )
        if services.drain.active:
            told = WrapperHealth("unhealthy", name, STOPPING, told.models_available, told.models_loaded)
    except LlamaRunnerError as error:
        told = WrapperHealth("unhealthy", name, error.message, 0, 0)
    status = 200 if told.status == "healthy" else 503
    return web.Response(body=strict_json.dumps(asdict(told)), status=status, headers={"Content-Type": MEDIA})


async def list_models(request: web.Request) -> web.StreamResponse:
    """List the models, loaded or not."""
    listed = await backend(request).models()
    return await answer(request, asdict(WrapperModels([one.model for one in listed])))


async def list_loaded(request: web.Request) -> web.StreamResponse:
    """List the models in memory: each instance, and how it runs."""
    kind = _kind(request)
    listed = wrapper.of_kind(await backend(request).models(), kind)
    return await answer(request, asdict(WrapperInstances([one for model in listed for one in model.loaded()])))


async def load(request: web.Request) -> web.StreamResponse:
    """Load a model, if it is not in memory, and answer when it is ready.

    It stays until it is unloaded, or has been idle for `ttl` seconds. In front of another LM Studio that time can only
    be set by the request that loads the model.
    """
    asked = await read(request, WrapperLoad)
    request.app[VIEW].check_management(request[CLIENT])
    with _named_by_key():
        loaded = await backend(request).load(asked.model_key, asked.ttl)
    return await answer(request, asdict(loaded))


async def unload(request: web.Request) -> web.StreamResponse:
    """Unload a model, or one of its instances by its identifier, when its running answers are finished."""
    request[RECORD].dialect = NATIVE.name
    request.app[VIEW].check_management(request[CLIENT])
    with _named_by_key():
        unloaded = await backend(request).unload(request.match_info["model_key"])
    return await answer(request, asdict(unloaded))


async def complete(request: web.Request) -> web.StreamResponse:
    """Continue a text. The answer is OpenAI's with the `text` on top; so is each chunk of a stream."""
    document = await _document(request, "prompt")
    return await _ask(request, COMPLETIONS, document, wrapper.with_text)


async def chat(request: web.Request) -> web.StreamResponse:
    """Chat with a model, as OpenAI's API has it."""
    return await _ask(request, CHAT, await _document(request, "messages"), dict)


async def see(request: web.Request) -> web.StreamResponse:
    """Ask a model about an image. The answer is that of a chat with its `text` on top."""
    asked = await read(request, VisionRequest)
    url = asked.image_path
    if url[:5].casefold() != "data:":
        url = await asyncio.to_thread(wrapper_images.data_url, url, request.app[VIEW].services.settings.wrapper)
    return await _ask(request, CHAT, wrapper.vision_document(asked, url), wrapper.with_text, vision=True)


async def use_tools(request: web.Request) -> web.StreamResponse:
    """Ask a model that may want functions of the client to be called. The answer is that of a chat with its `text`
    and its `tool_calls` on top.

    The client makes the calls; with `messages` it goes on: those before, the answer's own, and for each call one with
    the role tool, the `tool_call_id` and what came of it. An answer without calls is the last one.
    """
    asked = await read(request, ToolsRequest)
    change = wrapper.with_text if asked.stream else wrapper.with_calls
    return await _ask(request, CHAT, wrapper.tools_document(asked), change)


def backend(request: web.Request) -> Backend:
    """What stands behind the paths at present."""
    base = request.app[VIEW].services.settings.wrapper.base_url
    return Here(request) if base is None else Remote(request, base)


@contextmanager
def _named_by_key() -> Iterator[None]:
    """Where a model is missing, name the field as it is called here."""
    try:
        yield
    except ModelNotFound as error:
        error.param = "model_key"
        raise


async def _document(request: web.Request, needed: str) -> dict[str, object]:
    request[RECORD].dialect = NATIVE.name
    _, document = await body.read_object(request, request.app[VIEW].services.settings.server)
    if document.get(needed) is None:
        raise FieldRequired(needed)
    return wrapper.with_defaults(document)


def _kind(request: web.Request) -> Kind | None:
    asked = request.query.get("model_type")
    for kind in KINDS:
        if asked == kind:
            return kind
    if asked:
        raise InvalidValue(f"'model_type' must be {' or '.join(KINDS)}.", param="model_type")
    return None


async def _ask(
    request: web.Request, path: str, document: dict[str, object], change: Change, *, vision: bool = False
) -> web.StreamResponse:
    """Answer with what a model says, whole or streamed, changed a little."""
    services = request.app[VIEW].services
    stream = wants_stream(document)
    opening = await backend(request).question(path, document, vision=vision)
    del document  # may be large, and the answer may take long
    if stream:
        request[TICKET].begin_stream()
        request[RECORD].stream = True
        return await Chunks(request, opening, change, services).run()
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        async with watch, AsyncExitStack() as stack:
            raw = await (await opening(stack, watch)).whole()
        request[RECORD].used(usage.of_answer(raw))
    told = strict_json.dumps(change(event_of(raw.decode(errors="replace"))))
    return await relay.whole(request, told, MEDIA, services)


class Chunks(relay.Stream):
    """A stream of OpenAI's whose chunks are changed a little."""

    def __init__(self, request: web.Request, opening: Opening, change: Change, services: Services) -> None:
        super().__init__(request, None, NATIVE, services)
        self._opening = opening
        self._change = change

    async def _copy(self) -> None:
        watch = Watch(Patience.of(self._services.settings.server, pulse=True), self._pulse)
        with self._services.drain.counting(watch):
            async with watch, AsyncExitStack() as stack:
                await self._pass_on(await self._opening(stack, watch), watch)

    async def _pass_on(self, source: Source, watch: Watch) -> None:
        splitter, done = Splitter(), False
        while not done and (chunk := await source.some()):
            watch.phase(Phase.NEXT_BYTE)
            told: list[bytes] = []
            for event in splitter.feed(chunk):
                done = event.data == DONE
                told.append(DONE.encode() if done else strict_json.dumps(self._change(event_of(event.data))))
                if done:
                    break
            if told:
                await self._send(b"".join(map(sse, told)), watch)
        if not done:
            raise BackendFailed("The model broke off its answer.")

    async def _send(self, events: bytes, watch: Watch) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
        if not self._said.tail:
            self._record.first_token()
        self._said.add(events)
        watch.phase(Phase.CLIENT)
        await self._response.write(events)
        watch.phase(Phase.NEXT_BYTE)


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", f"{ROOT}/health"): health,
    ("GET", f"{ROOT}/models"): list_models,
    ("GET", f"{ROOT}/models/loaded"): list_loaded,
    ("POST", f"{ROOT}/models/load"): load,
    ("DELETE", f"{ROOT}/models/unload/{{model_key:.+}}"): unload,
    ("POST", f"{ROOT}/completions"): complete,
    ("POST", f"{ROOT}/chat/completions"): chat,
    ("POST", f"{ROOT}/vision"): see,
    ("POST", f"{ROOT}/tools"): use_tools,
}
