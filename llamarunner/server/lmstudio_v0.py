"""LM Studio's REST API v0, as far as it asks models: OpenAI's requests, answered with more facts."""

from __future__ import annotations

import platform
import sys
from contextlib import AsyncExitStack

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.lmstudio.errors import MEDIA, V0
from llamarunner.dialects.lmstudio.v0 import VERBOSE, ModelInfo, Runtime, Telling, model_info
from llamarunner.dialects.sse import DONE, Splitter
from llamarunner.dialects.usage import Usage
from llamarunner.dialects.wire import Dialect, sse
from llamarunner.errors import BackendFailed
from llamarunner.fleet.launch import Task
from llamarunner.server import body, lmstudio_openai, openai_api, relay
from llamarunner.server.openai_api import Ask
from llamarunner.server.record import RECORD
from llamarunner.server.services import TICKET, VIEW, Services
from llamarunner.server.upstream import Answer, Call, ask
from llamarunner.server.watch import Patience, Phase, Watch

_SYSTEMS = {"linux": "linux", "darwin": "mac", "win32": "win"}


def generating(path: str) -> Handler:
    """Make the handler for chats or completions; `path` is the process's."""
    asked_of = Ask(Task.GENERATE, streams=True, dialect=V0)

    async def generate(request: web.Request) -> web.StreamResponse:
        """Ask a model, as OpenAI's API has it; the answer tells how fast it was and by what it was made."""
        request[RECORD].dialect = V0.name
        services = request.app[VIEW].services
        _, document = await body.read_object(request, services.settings.server)
        stream = openai_api.wants_stream(document)
        call = lmstudio_openai.called(request, path, asked_of, (None, {**document, **VERBOSE}))
        del document  # may be large, and the answer may take long
        if stream:
            request[TICKET].begin_stream()
            request[RECORD].stream = True
            return await Chunks(request, call, V0, services).run()
        return await _whole(request, call, services)

    return generate


class Chunks(relay.Stream):
    """A stream whose last chunk has more facts."""

    def __init__(self, request: web.Request, call: Call, dialect: Dialect, services: Services) -> None:
        super().__init__(request, call, dialect, services)
        self._telling = Telling()

    async def _pump(self, answer: Answer, watch: Watch) -> None:
        splitter, done = Splitter(), False
        while chunk := await answer.some():
            watch.phase(Phase.NEXT_BYTE)
            told: list[bytes] = []
            for event in splitter.feed(chunk):
                if event.data == DONE:
                    told += [*self._telling.last(*await _facts(answer, self._services)), DONE.encode()]
                    done = True
                else:
                    told += self._telling.chunk(event.data)
            if told:
                await self._send(b"".join(map(sse, told)), watch)
        if not done:
            raise BackendFailed(f"The model '{answer.call.entry.id}' broke off its answer.")

    async def _send(self, events: bytes, watch: Watch) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
        if not self._said.tail:
            self._record.first_token()
        self._said.add(events)
        watch.phase(Phase.CLIENT)
        await self._response.write(events)
        watch.phase(Phase.NEXT_BYTE)

    def _used(self) -> Usage:
        return self._telling.tokens


async def _whole(request: web.Request, call: Call, services: Services) -> web.StreamResponse:
    telling, watch = Telling(), Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        async with watch, AsyncExitStack() as stack:
            answer = await ask(stack, services, call, watch)
            request[RECORD].leased(answer.lease)
            said = event_of((await answer.whole()).decode(errors="replace"))
            body = telling.whole(said, *await _facts(answer, services))
            request[RECORD].used(telling.tokens)
        return await relay.whole(request, body, MEDIA, services)


async def _facts(answer: Answer, services: Services) -> tuple[ModelInfo, Runtime]:
    granted = await services.figures.granted(answer.lease.endpoint)
    _, version = services.runtime()
    name = f"llama.cpp-{_SYSTEMS.get(sys.platform, sys.platform)}-{platform.machine().lower()}"
    return model_info(answer.call.entry, granted.context_length), Runtime(name, version, ["gguf"])


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/api/v0/chat/completions"): generating("/v1/chat/completions"),
    ("POST", "/api/v0/completions"): generating("/v1/completions"),
    ("POST", "/api/v0/embeddings"): openai_api.asking(
        "/api/v0/embeddings", Ask(Task.EMBED, dialect=V0, upstream="/v1/embeddings"), lmstudio_openai.called
    ),
}
