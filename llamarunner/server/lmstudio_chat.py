"""POST /api/v1/chat of LM Studio's REST API: stateful chats with tools, whole or as events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.chats import Entry, NotKept, new_id
from llamarunner.dialects.chat import BLIND, shows_images
from llamarunner.dialects.lmstudio import chat_request, described
from llamarunner.dialects.lmstudio.chat_events import Event, Telling, document, framed
from llamarunner.dialects.lmstudio.chat_request import ChatRequest, Integration
from llamarunner.dialects.lmstudio.errors import NATIVE, InvalidValue, PreviousResponseNotFound
from llamarunner.dialects.usage import Usage
from llamarunner.errors import LlamaRunnerError
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import AS_IT_IS, Manner
from llamarunner.fleet.subject import unit_name
from llamarunner.server import relay, upstream
from llamarunner.server.conversation import Conversation, messages_of
from llamarunner.server.lmstudio_asked import answer, read
from llamarunner.server.lmstudio_resolve import find
from llamarunner.server.record import RECORD, log_prompt
from llamarunner.server.resolve import able
from llamarunner.server.services import CLIENT, TICKET, VIEW, Services, View
from llamarunner.server.watch import Patience, Phase, Watch
from llamarunner.server.wishes import own_manner, wished
from llamarunner.toolbox import Asker, Ephemeral, Plugin, Toolbox

KIND = "chat"  # of responses that are kept
LOOK_SECONDS = 0.05  # between two looks at how far a model is


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer the next message of a chat, with the help of tools if there are any.

    A chat that is kept is gone on with by its `response_id`, from any of its responses. With `stream` the answer comes
    as server-sent events, whose last one is `chat.end` and has all of it.
    """
    view, record = request.app[VIEW], request[RECORD]
    services = view.services
    asked = await read(request, ChatRequest)
    entry = _find(view, asked)
    record.model_id = entry.id
    owner = view.owner(request.headers)
    turns = await _before(services, asked, owner)
    before = messages_of(turns)
    _check_sight(entry, asked, before)
    integrations, asker = [_integration(one) for one in asked.integrations], _asker(request)
    services.toolboxes.check(integrations, asker)
    system = next((one["system"] for one in reversed(turns) if one.get("system") is not None), None)
    system = system if asked.system_prompt is None else asked.system_prompt
    new = chat_request.user_message(asked)
    conversation = Conversation(
        services=services,
        record=record,
        entry=entry,
        manner=_manner(request, entry, asked),
        sampling=chat_request.sampling(asked),
        said=chat_request.messages(system, [*before, new]),
        telling=Telling(entry.instance_id),
        ask=partial(_ask, services),
        tell=_tell_nobody,
        most_rounds=services.settings.mcp.max_rounds,
    )
    if services.settings.logging.prompts:
        log_prompt(record, {"messages": conversation.said})
    question = Question(asked, owner, new, conversation, partial(services.toolboxes.opened, integrations, asker))
    if asked.stream:
        request[TICKET].begin_stream()
        record.stream = True
        return await Events(request, question, services).run()
    return await _whole(request, question, services)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, by whom, and how it is answered."""

    asked: ChatRequest
    owner: str
    new: dict[str, Any]  # the message
    conversation: Conversation
    toolbox: Callable[[], AbstractAsyncContextManager[Toolbox]]

    async def answered(self, watch: Watch) -> str | None:
        """Have the conversation, and keep it; returns the id under which that is done, if it is."""
        watch.phase(Phase.FETCH)
        async with self.toolbox() as toolbox:
            await self.conversation.run(toolbox, watch)
            watch.phase(Phase.FETCH)
            return await self._keep()

    async def _keep(self) -> str | None:
        asked, conversation = self.asked, self.conversation
        chats = conversation.services.chats
        if not asked.store or not chats.settings.enabled:
            return None
        response_id = new_id()
        told = document(conversation.telling.answer(conversation.stats, response_id))
        turn = {"system": asked.system_prompt, "messages": [self.new, *conversation.fresh]}
        entry = Entry(response_id, self.owner, KIND, asked.previous_response_id, turn, told)
        return response_id if await chats.keep(entry) else None


async def _whole(request: web.Request, question: Question, services: Services) -> web.StreamResponse:
    conversation = question.conversation
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        try:
            async with watch:
                response_id = await question.answered(watch)
        finally:
            request[RECORD].used(_usage(conversation))
    return await answer(request, document(conversation.telling.answer(conversation.stats, response_id)))


class Events(relay.Stream):
    """The answer as events. What goes wrong after the first is an event too, and the last one is `chat.end`."""

    def __init__(self, request: web.Request, question: Question, services: Services) -> None:
        super().__init__(request, None, NATIVE, services)
        self._question = question
        self._conversation = question.conversation
        self._telling = question.conversation.telling
        self._conversation.ask, self._conversation.tell = self._ask_and_tell, self._tell
        self._watch = Watch(Patience.of(services.settings.server, pulse=True), self._pulse)

    async def _copy(self) -> None:
        with self._services.drain.counting(self._watch):
            async with self._watch:
                response_id = await self._question.answered(self._watch)
                await self._tell(self._telling.end(self._conversation.stats, response_id))

    async def _ask_and_tell(self, stack: AsyncExitStack, call: upstream.Call, watch: Watch) -> upstream.Answer:
        """Ask, and meanwhile tell how far the model is if it has to be loaded."""
        over = asyncio.Event()
        herald = self._pulses.create_task(self._tell_load(call, over))
        try:
            said = await upstream.ask(stack, self._services, call, watch)
        except BaseException:
            herald.cancel()
            raise
        over.set()
        await herald
        return said

    async def _tell_load(self, call: upstream.Call, over: asyncio.Event) -> None:
        supervisor, asked_at = self._services.supervisor, time.monotonic()
        if supervisor.unit(call.entry, call.task) is None:
            return
        name, seen = unit_name(call.entry, call.task), False
        while not over.is_set() and (progress := supervisor.progress(name)):
            seen = True
            if events := self._telling.loading(progress.fraction):
                await self._say(framed(events))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):  # `wait_for` may swallow a cancellation
                    await over.wait()
        instance = supervisor.instance(call.entry, call.task)
        if seen and instance and instance.ready_at:
            await self._say(framed(self._telling.loaded(instance.ready_at - max(asked_at, instance.began))))

    async def _tell(self, events: list[Event]) -> None:
        if not events:
            return
        if not self._response.prepared:
            await self._response.prepare(self._request)
        self._watch.phase(Phase.CLIENT)
        await self._response.write(framed(events))
        self._watch.phase(Phase.NEXT_BYTE)

    async def _fail(self, error: LlamaRunnerError) -> None:
        if not self._response.prepared:
            raise error
        self._record.status = error.status
        await self._say(framed(self._telling.failed(error) + self._telling.end(self._conversation.stats, None)))

    def _used(self) -> Usage:
        return _usage(self._conversation)


async def _ask(services: Services, stack: AsyncExitStack, call: upstream.Call, watch: Watch) -> upstream.Answer:
    return await upstream.ask(stack, services, call, watch)


async def _tell_nobody(events: list[Event]) -> None:
    """Of a whole answer nobody is told before its end."""


def _usage(conversation: Conversation) -> Usage:
    stats = conversation.stats
    return Usage(stats.input_tokens or None, stats.total_output_tokens or None, stats.tokens_per_second or None)


# ── what is asked ──────────────────────────────────────────────────────────────────────────────────────────────────


def _find(view: View, asked: ChatRequest) -> ModelEntry:
    """Find the model, and check that it can do what is asked. Raises UnknownModel, InvalidRequest or ModelNotLoaded."""
    entry, _ = able(find(view, asked.model), Task.GENERATE)
    chat_request.check_reasoning(entry.id, asked.reasoning, described.reasoning_options(described.model(entry)))
    return entry


def _check_sight(entry: ModelEntry, asked: ChatRequest, before: list[dict[str, Any]]) -> None:
    """Raise InvalidValue for images, now or before, that the model cannot see."""
    if Capability.VISION not in entry.capabilities and (asked.sees or shows_images(before)):
        param = "input" if asked.sees else "previous_response_id"
        raise InvalidValue(BLIND.format(entry.id), param=param)


async def _before(services: Services, asked: ChatRequest, owner: str) -> list[dict[str, Any]]:
    """What was said before. Raises PreviousResponseNotFound."""
    if asked.previous_response_id is None:
        return []
    try:
        return await services.chats.turns(asked.previous_response_id, owner, KIND)
    except NotKept:
        raise PreviousResponseNotFound(asked.previous_response_id) from None


def _manner(request: web.Request, entry: ModelEntry, asked: ChatRequest) -> Manner:
    """How the model is to be run if this request loads it; one that runs already stays as it is."""
    view, tokens = request.app[VIEW], asked.context_length
    if tokens is None:
        return own_manner(view, entry, Task.GENERATE)
    if view.services.supervisor.instance(entry, Task.GENERATE) is not None or not view.may_manage(request[CLIENT]):
        return AS_IT_IS
    return Manner(wished(view, entry, Task.GENERATE, {**entry.preset.parameters, "num_ctx": tokens}))


def _asker(request: web.Request) -> Asker:
    view, client = request.app[VIEW], request[CLIENT]
    return Asker(plugins=view.may_use_plugins(client), loopback=view.is_local(client))


def _integration(asked: Integration) -> Plugin | Ephemeral:
    if asked.type == "plugin":
        return Plugin(asked.id or "", asked.allowed_tools)
    return Ephemeral(asked.server_label or "", asked.server_url or "", asked.allowed_tools, asked.headers or {})


ROUTES: dict[tuple[str, str], Handler] = {("POST", "/api/v1/chat"): chat}
