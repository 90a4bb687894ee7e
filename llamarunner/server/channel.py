"""The websocket /v1/ws: chats, several at once, and news of the house. Its messages are in `channel_messages`.

What holds it within bounds: a message has at most `MAX_MESSAGE` bytes, and there are at most so many a second, of which
a long one counts as several; `frames` are counted too, and nothing is compressed. A chat is admitted or refused before
the next message is read, and is kept as the bytes that its model is asked. What is sent is written at once and waited
for; a client that takes nothing of it for `write_stall_seconds` is dropped, and one that does not answer to a ping too.

The upgrade is one request for the limits, and over with the handshake; how many connections a client may keep open is
as many as it may have requests at the same time, counted apart. Each chat then is a request of its own, and a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, assert_never

from aiohttp import WSCloseCode, WSMsgType, web

from llamarunner.config import NO_LIMITS
from llamarunner.errors import InvalidRequest, LlamaRunnerError, RateLimited, ShuttingDown, Unauthorized
from llamarunner.limits import Account, Bucket, Ticket
from llamarunner.server import channel_messages
from llamarunner.server.channel_chat import Chat
from llamarunner.server.channel_messages import (
    Cancel,
    ChatMessage,
    FromClient,
    Message,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    refusal,
)
from llamarunner.server.channel_news import News, Work
from llamarunner.server.connection import drop
from llamarunner.server.drain import STOPPING
from llamarunner.server.record import RECORD
from llamarunner.server.services import ACCOUNT, CLIENT, TICKET, VIEW, View

MAX_MESSAGE = 2**20  # bytes; whole conversations fit, with small pictures
MESSAGES_PER_SECOND = 20
BURST = 40
BYTES_LIKE_A_MESSAGE = 16_384  # a longer one counts as several
MOST_CHATS = 100  # of one connection, for clients without limits
MOST_BYTES = 16 * MAX_MESSAGE  # that its chats ask, all together
PING_SECONDS = 20.0
CLOSE_SECONDS = 1.0  # for the client's part of a closing handshake
OVER = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


async def channel(request: web.Request) -> web.StreamResponse:
    """Open a websocket, and serve it until either side closes it."""
    view = request.app[VIEW]
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidRequest("This path speaks WebSocket only (RFC 6455): send a GET with 'Upgrade: websocket'.")
    if view.services.drain.active:
        raise ShuttingDown(STOPPING, retry_after=5)
    with _seat(view, request[ACCOUNT]):
        socket = web.WebSocketResponse(
            timeout=CLOSE_SECONDS,
            autoping=False,  # pings count as messages
            heartbeat=PING_SECONDS,
            compress=False,  # pieces of text are short, and a compressed message can be a bomb
            max_msg_size=MAX_MESSAGE,
            writer_limit=0,  # every message waits until the one before is gone
        )
        try:
            await socket.prepare(request)
        except web.HTTPBadRequest as error:
            raise InvalidRequest(f"The websocket cannot be opened: {error.text}") from None
        request[RECORD].status = socket.status  # however it ends
        request[TICKET].release()
        opened = Channel(request, socket)
        with view.services.drain.hosting(opened.leave):
            await opened.serve()
    return socket


def _seat(view: View, account: Account) -> Ticket:
    """Count an open websocket. Raises RateLimited."""
    most = account.limits.concurrent_requests
    seats = Account(account.client, NO_LIMITS.model_copy(update={"concurrent_requests": most}))
    try:
        return view.channels.admit(seats, time.monotonic_ns())
    except RateLimited as error:
        raise RateLimited(f"Too many open websockets; the limit is {most}.", retry_after=error.retry_after) from None


class Channel:
    """One open websocket."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self._request = request
        self._socket = socket
        self._view = request.app[VIEW]
        self._client = request[CLIENT]
        self._stall = self._view.services.settings.server.write_stall_seconds
        self._bucket = Bucket(MESSAGES_PER_SECOND, BURST, time.monotonic_ns())
        self._chats: dict[str, Chat] = {}
        self._running: set[asyncio.Task[None]] = set()  # chats, until their last message is sent
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self._leaving = asyncio.Event()
        self._ending: tuple[int, str] | None = None  # the code and the reason
        self._listening = asyncio.timeout(None)
        self._group = asyncio.TaskGroup()
        self._news = News(request, self.tell, self._spawn, self._expel)

    def leave(self) -> None:
        """Close it, as soon as its chats are over."""
        self._leaving.set()

    async def serve(self) -> None:
        """Serve until either side closes; its chats end with it."""
        async with self._group:
            self._spawn(self._farewell)
            try:
                async with self._listening:
                    await self._listen()
            except TimeoutError:
                if self._listening.expired() and self._ending:
                    await self._close(*self._ending)
            self._ending = self._ending or (WSCloseCode.OK, "")
            for task in tuple(self._tasks):
                task.cancel()
        if self._socket.close_code == WSCloseCode.ABNORMAL_CLOSURE:
            self._drop()  # it answers to nothing, so it will not take what is still to be sent

    async def say(self, message: Message) -> None:
        """Send a message, and wait until the client has taken what was sent. Raises ConnectionError."""
        await self._socket.send_frame(message.text, WSMsgType.TEXT)

    async def tell(self, message: Message) -> None:
        """Send a message; a client that does not take it in time is dropped. Raises ConnectionError."""
        await self._in_time(self.say(message))

    # ── from the client ────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        while True:
            frame = await self._socket.receive()
            if frame.type in OVER:
                return
            if not self._bucket.take(time.monotonic_ns()):
                await self._close(WSCloseCode.POLICY_VIOLATION, "Too many messages.")
                return
            try:
                await self._heed(frame.type, frame.data)
            except ConnectionError:
                return
            if cost := len(frame.data) // BYTES_LIKE_A_MESSAGE:
                await asyncio.sleep(self._bucket.charge(cost))

    async def _heed(self, kind: WSMsgType, data: Any) -> None:
        """Do what a message asks, or say what is wrong with it."""
        if kind is WSMsgType.PONG:
            return
        if kind is WSMsgType.PING:
            await self._in_time(self._socket.pong(data))
            return
        message_id = None
        try:
            if kind is not WSMsgType.TEXT:
                raise InvalidRequest("Messages must be texts in JSON.")
            document = channel_messages.read(data)
            message_id = _id_of(document)
            account = self._view.recognise_again(self._client, self._request.headers)
            answer = self._do(channel_messages.parse(document), account)
        except LlamaRunnerError as error:
            answer = refusal(error, message_id)
            if isinstance(error, Unauthorized):
                await self.tell(answer)
                self._expel()
                return
        if answer is not None:
            await self.tell(answer)

    def _do(self, message: FromClient, account: Account) -> Message | None:
        match message:
            case ChatMessage():
                self._begin(message, account)
            case Cancel():
                self._find(message.id).cancel()
            case Ping():
                return Pong(type="pong", id=message.id)
            case Subscribe():
                return self._news.subscribe(message)
            case Unsubscribe():
                return self._news.unsubscribe(message)
            case _:
                assert_never(message)
        return None

    # ── chats ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, message: ChatMessage, account: Account) -> None:
        if self._view.services.drain.active:
            raise ShuttingDown(STOPPING, retry_after=5)
        if len(self._running) >= MOST_CHATS:
            raise RateLimited(f"Too many chats at the same time; the limit is {MOST_CHATS}.", retry_after=1)
        if sum(chat.size for chat in self._chats.values()) > MOST_BYTES - MAX_MESSAGE:
            raise RateLimited("The chats of this connection hold too many bytes; wait until one ends.", retry_after=1)
        if message.id in self._chats:
            raise InvalidRequest(f"A chat with the id '{message.id}' is running.", param="id")
        chat = Chat(self._view, message.id or self._free_id(), self.say, self._drop)
        try:
            chat.begin(message, account, self._client)
        except RateLimited as error:
            self._view.services.metrics.refused(self._view.name, error.limit)
            raise
        self._chats[chat.id] = chat
        task = self._spawn(partial(self._run, chat))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(chat.release)

    async def _run(self, chat: Chat) -> None:
        try:
            last = await chat.run()
        finally:
            del self._chats[chat.id]  # the client may use the id again as soon as it has the last message
        if last is not None:
            await self.tell(last)

    def _find(self, chat_id: str) -> Chat:
        if chat_id not in self._chats:
            raise InvalidRequest(f"No chat with the id '{chat_id}' is running.", param="id")
        return self._chats[chat_id]

    def _free_id(self) -> str:
        while True:
            self._count += 1
            chosen = f"chat-{self._count}"
            if chosen not in self._chats:
                return chosen

    # ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _farewell(self) -> None:
        """When the server stops: let the chats end, then close."""
        await self._leaving.wait()
        if self._running:
            await asyncio.wait(self._running)
        self._end(WSCloseCode.GOING_AWAY, STOPPING)

    def _expel(self) -> None:
        self._end(WSCloseCode.POLICY_VIOLATION, "The API key is no longer valid.")

    def _end(self, code: int, reason: str) -> None:
        """Listen no longer, and close; the first reason counts."""
        if self._ending is None:
            self._ending = code, reason
            self._listening.reschedule(asyncio.get_running_loop().time())

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(2 * CLOSE_SECONDS):
                await self._socket.close(code=code, message=reason.encode())
        except TimeoutError:
            self._drop()

    async def _in_time(self, sending: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await sending
        except TimeoutError:
            self._drop()
            raise ConnectionResetError("the client takes nothing") from None

    def _drop(self) -> None:
        drop(self._request)

    def _spawn(self, work: Work) -> asyncio.Task[None]:
        task = self._group.create_task(_until_gone(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _until_gone(work: Work) -> None:
    """Let work end quietly with the client."""
    with contextlib.suppress(ConnectionError):
        await work()


def _id_of(document: dict[str, object]) -> str | None:
    given = document.get("id")
    return given if isinstance(given, str) and len(given) <= 100 else None
