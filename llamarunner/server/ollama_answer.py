"""An answer in Ollama's language, made from what llama.cpp says: as lines of JSON while it comes, or in one piece.

Nothing is sent before the first object exists, so an error until then has its status. Later it is the last line.
A prompt that is too long for the model loses its oldest messages if the client leaves `truncate` on; only the model's
process can tell that it is, so it is asked first, and the answer has a header that tells how many are missing.
"""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import chat, strict_json
from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.llama_cpp import ContextLengthExceeded
from llamarunner.dialects.ollama.answers import Answer, Durations, Object, Shape, text_of
from llamarunner.dialects.ollama.errors import OLLAMA
from llamarunner.dialects.ollama.shorten import shortened
from llamarunner.dialects.sse import DONE, Splitter
from llamarunner.dialects.usage import Usage
from llamarunner.errors import BackendFailed
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Manner
from llamarunner.server import relay, upstream
from llamarunner.server.ollama_asked import JSON
from llamarunner.server.record import RECORD, log_prompt
from llamarunner.server.services import TICKET, VIEW, Services
from llamarunner.server.upstream import Body, Call
from llamarunner.server.watch import Patience, Phase, Watch

NDJSON = "application/x-ndjson"
DROPPED = "X-Dropped-Messages"


@dataclass(slots=True)
class Question:
    """What is asked of a model, and how the answer is told."""

    entry: ModelEntry
    model: str  # its name as the client said it
    path: str  # of the model's process
    document: dict[str, Any]  # the body for it
    manner: Manner
    shape: Shape
    stream: bool
    top_logprobs: int = 0
    truncate: bool = False  # whether the oldest messages may be dropped
    remember: list[int] | None = None  # the tokens before the prompt, if the answer is to tell all tokens
    began: int = field(default_factory=time.monotonic_ns)
    dropped: int = 0

    @property
    def call(self) -> Call:
        body = Body({**self.document, "model": self.entry.id})
        return Call(self.entry, Task.GENERATE, self.path, body, self.manner)

    def shorten(self, refusal: ContextLengthExceeded) -> bool:
        """Drop the oldest messages, as many as the refusal lets expect; False if there are none to drop."""
        messages = self.document.get("messages") if self.truncate else None
        if not messages:
            return False
        left = shortened(messages, refusal.details)
        self.dropped += len(messages) - len(left)
        self.document["messages"] = left
        return len(left) < len(messages)


async def respond(request: web.Request, question: Question) -> web.StreamResponse:
    """Answer a request with what the model says. Raises our errors as long as nothing has been sent."""
    services = request.app[VIEW].services
    if services.settings.logging.prompts:
        log_prompt(request[RECORD], question.document)
    if "messages" in question.document:
        chat.check_messages(question.document)
    if question.stream:
        request[TICKET].begin_stream()
        request[RECORD].stream = True
        return await Lines(request, question, services).run()
    return await _whole(request, question, services)


async def _whole(request: web.Request, question: Question, services: Services) -> web.StreamResponse:
    record, said = request[RECORD], Answer(question.model, question.shape, question.top_logprobs)
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        async with watch, AsyncExitStack() as stack:
            answer = await _ask(stack, services, question, watch)
            record.leased(answer.lease)
            body = await answer.whole()
            lines = said.feed(event_of(body.decode(errors="replace")), time.time_ns())
            record.used(said.tokens)
            context = await _context(services, question, answer, text_of(lines))
        document = said.whole(lines, time.time_ns(), _durations(question, answer), context)
        headers = {DROPPED: str(question.dropped)} if question.dropped else {}
        return await relay.whole(request, strict_json.dumps(document), JSON, services, headers)


class Lines(relay.Stream):
    """An answer as lines of JSON."""

    media = NDJSON
    pulses = False

    def __init__(self, request: web.Request, question: Question, services: Services) -> None:
        super().__init__(request, question.call, OLLAMA, services)
        self._question = question
        self._answer = Answer(question.model, question.shape, question.top_logprobs)
        self._splitter = Splitter()
        self._lines: list[bytes] = []  # all of them, if their text is to be remembered

    async def _ask(self, stack: AsyncExitStack, watch: Watch) -> upstream.Answer:
        answer = await _ask(stack, self._services, self._question, watch)
        if self._question.dropped:
            self._response.headers[DROPPED] = str(self._question.dropped)
        return answer

    async def _pump(self, answer: upstream.Answer, watch: Watch) -> None:
        while chunk := await answer.some():
            watch.phase(Phase.NEXT_BYTE)
            if lines := self._translated(chunk):
                await self._send(lines, watch)
        if not self._answer.finished:
            raise BackendFailed(f"The model '{self._question.entry.id}' broke off its answer.")
        said = text_of([json.loads(line) for line in b"".join(self._lines).splitlines()])
        context = await _context(self._services, self._question, answer, said)
        last = self._answer.done(time.time_ns(), _durations(self._question, answer), context)
        await self._send(_line(last), watch)

    def _translated(self, chunk: bytes) -> bytes:
        now, told = time.time_ns(), b""
        for event in self._splitter.feed(chunk):
            if event.data == DONE:
                self._answer.finished = True
            else:
                told += self._answer.lines(event_of(event.data), now)
        if self._question.remember is not None:
            self._lines.append(told)
        return told

    async def _send(self, lines: bytes, watch: Watch) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
            self._record.first_token()
        watch.phase(Phase.CLIENT)
        await self._response.write(lines)
        watch.phase(Phase.NEXT_BYTE)

    def _used(self) -> Usage:
        return self._answer.tokens


async def _ask(stack: AsyncExitStack, services: Services, question: Question, watch: Watch) -> upstream.Answer:
    while True:
        try:
            return await upstream.ask(stack, services, question.call, watch)
        except ContextLengthExceeded as refusal:
            if not question.shorten(refusal):
                raise
            await stack.aclose()


async def _context(services: Services, question: Question, answer: upstream.Answer, said: str) -> list[int] | None:
    """The tokens of the prompt and of the answer, asked for when all has been said; None if they are not wanted."""
    if question.remember is None:
        return None
    prompt: Any = question.document.get("prompt")
    if prompt is None:
        rendered = await _tell(services, answer, "/apply-template", question.document)
        prompt = [rendered.get("prompt")]
    text = prompt[-1]
    if not isinstance(text, str):
        return None
    wanted = {"content": text + said, "add_special": not question.remember, "parse_special": True}
    tokens = (await _tell(services, answer, "/tokenize", wanted)).get("tokens")
    return question.remember + tokens if isinstance(tokens, list) else None


async def _tell(services: Services, answer: upstream.Answer, path: str, document: object) -> dict[str, Any]:
    body = await upstream.ask_more(services.client, answer, path, strict_json.dumps(document))
    return {} if body is None else event_of(body.decode(errors="replace"))


def _durations(question: Question, answer: upstream.Answer) -> Durations:
    waited = answer.lease.queue_seconds + answer.lease.load_seconds
    return Durations(time.monotonic_ns() - question.began, int(waited * 1e9))


def _line(document: Object) -> bytes:
    return strict_json.dumps(document) + b"\n"
