"""OpenAI's Responses API: answers that are kept, gone on from, read again and deleted."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.chats import Entry, NotKept, new_id
from llamarunner.dialects import strict_json
from llamarunner.dialects.images import remote_images
from llamarunner.dialects.lmstudio.errors import PreviousResponseNotFound
from llamarunner.dialects.openai import RESPONSES
from llamarunner.dialects.responses import asking
from llamarunner.dialects.responses.telling import Document, Telling, framed
from llamarunner.dialects.sse import Splitter
from llamarunner.dialects.usage import Usage
from llamarunner.errors import BackendFailed, InvalidRequest, ResponseNotFound
from llamarunner.fleet.launch import Task
from llamarunner.server import body, relay, upstream
from llamarunner.server.calls import call_of
from llamarunner.server.lmstudio_resolve import resolve_for_lmstudio
from llamarunner.server.record import RECORD
from llamarunner.server.remote_images import inline
from llamarunner.server.resolve import resolve
from llamarunner.server.services import CLIENT, TICKET, VIEW, Services
from llamarunner.server.upstream import Call
from llamarunner.server.watch import Patience, Phase, Watch

PATH = "/v1/chat/completions"  # of the model's process
KIND = "response"  # of those that are kept
JSON = "application/json"
ONE = "/v1/responses/{id:[^/]+}"


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """What is read of a request; what else there is passes to the model."""

    model: str | None = None
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class ResponseDeleted:
    id: str
    object: Literal["response"]
    deleted: Literal[True]


@dataclass(frozen=True, slots=True)
class InputItems:
    """The items of a request, the newest first unless it was asked otherwise."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


@dataclass(frozen=True, slots=True)
class Question:
    """One request: as it came, as a call of the model, and who may see the answer again."""

    document: Document
    items: list[Document]  # its own
    owner: str
    call: Call
    telling: Telling


async def create(request: web.Request) -> web.StreamResponse:
    """Answer as OpenAI's Responses API does, also going on from an answer that was kept.

    Answers are kept unless `store` is false; with `stream` they come as server-sent events.
    """
    view, record = request.app[VIEW], request[RECORD]
    services = view.services
    record.dialect = RESPONSES.name
    _, document = await body.read_object(request, services.settings.server)
    stream = asking.flag(document, "stream", False)
    question = await _question(request, document)
    if stream:
        request[TICKET].begin_stream()
        record.stream = True
        return await Events(request, question, services).run()
    return await _whole(request, question, services)


async def retrieve(request: web.Request) -> web.StreamResponse:
    """Tell a response that was kept."""
    entry = await _kept(request)
    return await _answer(request, entry.body)


async def delete(request: web.Request) -> web.StreamResponse:
    """Forget a response, or one of LM Studio's chats; chats that went on from it cannot be gone on with any more."""
    view, response_id = request.app[VIEW], request.match_info["id"]
    try:
        await view.services.chats.delete(response_id, view.owner(request.headers))
    except NotKept:
        raise ResponseNotFound(response_id) from None
    return await _answer(request, {"id": response_id, "object": "response", "deleted": True})


async def input_items(request: web.Request) -> web.StreamResponse:
    """List what a request brought along, without what was said before it. `order` is `desc` or `asc`."""
    order = request.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest("'order' must be asc or desc.", param="order")
    entry = await _kept(request)
    own = entry.id.removeprefix("resp_")[:22]
    items = [{"id": f"item_{own}{number:02x}", **item} for number, item in enumerate(entry.turn.get("input", []))]
    data = items if order == "asc" else items[::-1]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    told = {"object": "list", "data": data, "first_id": ends[0], "last_id": ends[1], "has_more": False}
    return await _answer(request, told)


# ── one answer ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _question(request: web.Request, document: Document) -> Question:
    """Find out what is asked. Raises InvalidRequest that names the field, and what `call_of` raises."""
    view = request.app[VIEW]
    services, owner = view.services, view.owner(request.headers)
    asking.flag(document, "store", True)
    if not services.chats.settings.enabled:
        document["store"] = False
    if "input" not in document:
        raise InvalidRequest("'input' is required.", param="input")
    items = asking.items_of(document["input"])
    before = await _before(services, asking.name_of(document, "previous_response_id"), owner)
    if remote_images(document):  # fetched here, where they have their place in the request's own words
        await inline(document, services.outbound, loopback=view.is_local(request[CLIENT]))
    asked = asking.chat(document, [*before, *items], len(before))
    find = resolve_for_lmstudio if view.name == "lmstudio" else resolve
    call = call_of(view, request[RECORD], PATH, find(view, document, Task.GENERATE), (None, asked))
    telling = Telling(new_id(), document, call.entry.instance_id, int(time.time()))
    return Question(document, items, owner, call, telling)


async def _before(services: Services, previous: str | None, owner: str) -> list[Document]:
    """The items of all turns before. Raises PreviousResponseNotFound."""
    if previous is None:
        return []
    try:
        turns = await services.chats.turns(previous, owner, KIND)
    except NotKept:
        raise PreviousResponseNotFound(previous) from None
    return [item for turn in turns for item in (*turn["input"], *turn["output"])]


async def _keep(services: Services, question: Question, told: Document) -> None:
    """Keep a response, if that is wanted; why it cannot be kept is in the log."""
    if question.document.get("store") is False:
        return
    previous = asking.name_of(question.document, "previous_response_id")
    turn = {"input": question.items, "output": told["output"]}
    await services.chats.keep(Entry(question.telling.id, question.owner, KIND, previous, turn, told))


async def _whole(request: web.Request, question: Question, services: Services) -> web.StreamResponse:
    telling, splitter, record = question.telling, Splitter(), request[RECORD]
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        async with watch, AsyncExitStack() as stack:
            answer = await upstream.ask(stack, services, question.call, watch)
            record.leased(answer.lease)
            while chunk := await answer.some():
                watch.phase(Phase.NEXT_BYTE)
                for event in splitter.feed(chunk):
                    telling.take(event.data)
            _check_whole(question)
            record.used(telling.reading.tokens)
    telling.close()
    told = telling.document(telling.status, int(time.time()))
    await _keep(services, question, told)
    return await _answer(request, told)


class Events(relay.Stream):
    """A response as events; it is kept before the last of them, so that a client can go on from it at once."""

    def __init__(self, request: web.Request, question: Question, services: Services) -> None:
        super().__init__(request, question.call, RESPONSES, services)
        self._question = question
        self._telling = question.telling
        self._splitter = Splitter()

    async def _pump(self, answer: upstream.Answer, watch: Watch) -> None:
        while chunk := await answer.some():
            watch.phase(Phase.NEXT_BYTE)
            events = [one for event in self._splitter.feed(chunk) for one in self._telling.take(event.data)]
            if events:
                await self._tell(events, watch)
        _check_whole(self._question)
        events = self._telling.end(int(time.time()))
        watch.phase(Phase.FETCH)
        await _keep(self._services, self._question, events[-1]["response"])
        await self._tell(events, watch)

    async def _tell(self, events: list[Document], watch: Watch) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
            self._record.first_token()
        told = framed(events)
        self._said.add(told)
        watch.phase(Phase.CLIENT)
        await self._response.write(told)
        watch.phase(Phase.NEXT_BYTE)

    def _used(self) -> Usage:
        return self._telling.reading.tokens


def _check_whole(question: Question) -> None:
    if not question.telling.reading.complete:
        raise BackendFailed(f"The model '{question.call.entry.id}' broke off its answer.")


async def _kept(request: web.Request) -> Entry:
    view, response_id = request.app[VIEW], request.match_info["id"]
    try:
        return await view.services.chats.entry(response_id, view.owner(request.headers), KIND)
    except NotKept:
        raise ResponseNotFound(response_id) from None


async def _answer(request: web.Request, document: object) -> web.StreamResponse:
    return await relay.whole(request, strict_json.dumps(document), JSON, request.app[VIEW].services)


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/responses"): create,
    ("GET", ONE): retrieve,
    ("DELETE", ONE): delete,
    ("GET", f"{ONE}/input_items"): input_items,
}
