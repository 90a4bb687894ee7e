"""One chat of a websocket: the way of POST /v1/chat/completions with `stream`, told in messages.

The lease, the limits of time and the drain are those of the relay, and so is back-pressure: every piece is written
before the next one is read, so a client that does not read stops the model.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack

from llamarunner.dialects.chat_stream import Reading
from llamarunner.dialects.openai import OPENAI
from llamarunner.dialects.sse import Splitter
from llamarunner.errors import BackendFailed, InvalidRequest, LlamaRunnerError, RequestTimeout, ServerError
from llamarunner.fleet.launch import Task
from llamarunner.limits import Account
from llamarunner.server.calls import call_of
from llamarunner.server.channel_messages import ChatDelta, ChatEnd, ChatMessage, ChatStart, Message, refusal
from llamarunner.server.guards import CHANNEL_PATH
from llamarunner.server.record import CLIENT_GONE, Record
from llamarunner.server.resolve import resolve
from llamarunner.server.services import View
from llamarunner.server.upstream import Answer, ask
from llamarunner.server.watch import Patience, Phase, Watch

log = logging.getLogger("llamarunner.server")

PATH = "/v1/chat/completions"
OURS = frozenset({"messages", "model", "n", "stream", "stream_options"})  # what `options` may not say


class Cancelled(LlamaRunnerError):
    """The client wants no more of the answer."""


class Chat:
    """A chat with an id; `say` sends a message and waits until there is room for it, `drop` ends the connection.

    First `begin`, then `run`, and at the end `release`, even if it never ran.
    """

    def __init__(
        self, view: View, chat_id: str, say: Callable[[Message], Awaitable[None]], drop: Callable[[], None]
    ) -> None:
        self.id = chat_id
        self.request_id = secrets.token_hex(8)
        self._view = view
        self._services = view.services
        self._say = say
        self._drop = drop
        self._watch: Watch | None = None
        self._cancelled = False

    def begin(self, message: ChatMessage, account: Account, client: str) -> None:
        """Count it in the budget of an account and make its call. Raises what refuses it."""
        view = self._view
        self._record = Record(self.request_id, view.name, client, "CHAT", CHANNEL_PATH, OPENAI.name, stream=True)
        with ExitStack() as stack:
            stack.enter_context(view.services.records.open(self._record))
            ticket = stack.enter_context(view.limiter.admit(account, time.monotonic_ns()))
            self._record.admitted = True
            asked = None, document_of(message)
            found = resolve(view, asked[1], Task.GENERATE)
            self._call = call_of(view, self._record, PATH, found, asked)
            ticket.begin_stream()
            self._held = stack.pop_all()

    @property
    def size(self) -> int:
        """Bytes of what is asked."""
        return len(self._call.body.data)

    def release(self, *_: object) -> None:
        """Give back what it holds, if it was cancelled before it began."""
        self._record.status = self._record.status or CLIENT_GONE
        self._held.close()

    def cancel(self) -> None:
        """End it; its last message is `chat_end`."""
        self._cancelled = True
        if self._watch is not None:
            self._watch.end(Cancelled("cancelled"))

    async def run(self) -> Message | None:
        """Answer; return the last message, or None if nobody is there to read it."""
        try:
            with self._held:
                return await self._answer()
        except (RequestTimeout, ConnectionError):
            self._drop()
            return None
        except LlamaRunnerError as error:
            failure = error
        except Exception:
            log.exception("%s chat: unexpected error", self.request_id)
            failure = ServerError(f"The server met an unexpected error; its log has it under {self.request_id}.")
        return refusal(failure, self.id)

    async def _answer(self) -> ChatEnd:
        services, record = self._services, self._record
        model, reading = self._call.entry.id, Reading()
        self._watch = watch = Watch(Patience.of(services.settings.server, pulse=False))
        try:
            with services.drain.counting(watch):
                async with watch, AsyncExitStack() as stack:
                    if self._cancelled:
                        watch.end(Cancelled("cancelled"))
                    await self._tell(ChatStart(type="chat_start", id=self.id, model=model, request_id=self.request_id))
                    answer = await ask(stack, services, self._call, watch)
                    record.leased(answer.lease)
                    await self._pump(answer, reading, record)
        except Cancelled:
            return ChatEnd(type="chat_end", id=self.id, model=model, finish_reason="cancelled", usage=None)
        finally:
            record.used(reading.tokens)
        reason = reading.finish_reason or "stop"
        return ChatEnd(type="chat_end", id=self.id, model=model, finish_reason=reason, usage=reading.usage)

    async def _pump(self, answer: Answer, reading: Reading, record: Record) -> None:
        assert self._watch
        splitter = Splitter()
        while chunk := await answer.some():
            for event in splitter.feed(chunk):
                if new := reading.take(event.data):
                    if record.first_token_seconds is None:
                        record.first_token()
                    await self._tell(ChatDelta(type="chat_delta", id=self.id, **new))
            self._watch.phase(Phase.NEXT_BYTE)
        if not reading.complete:
            raise BackendFailed(f"The model '{answer.call.entry.id}' broke off its answer.")

    async def _tell(self, message: Message) -> None:
        assert self._watch
        self._watch.phase(Phase.CLIENT)
        await self._say(message)


def document_of(message: ChatMessage) -> dict[str, object]:
    """Say a message as the body of a request. Raises InvalidRequest."""
    if (message.message is None) == (message.messages is None):
        raise InvalidRequest("A chat has either 'message' or 'messages'.", param="message")
    for name in sorted(OURS & message.options.keys()):
        raise InvalidRequest(f"'options.{name}' cannot be set here.", param=f"options.{name}")
    messages = message.messages if message.message is None else [{"role": "user", "content": message.message}]
    ours = {"model": message.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    return {**message.options, **ours}
