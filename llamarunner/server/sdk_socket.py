"""One websocket of LM Studio's SDKs: the handshake, calls and channels. The frames are in `dialects.lmstudio`.

What holds it within bounds: a frame is at most as long as a request body may be, and until the client has said who it
is, all that it sends is short and has to come within ten seconds. SDKs send a list of texts as one call for each; so
while many calls run, or hold much, nothing more is read, and the same holds for a client that sends too fast. Channels
too many are refused. What is sent is waited for, and a client that takes nothing of it for `write_stall_seconds` is
dropped, and so is one that is silent for as long and then does not answer to a ping. All that runs for a socket ends
with it.

Where a door has keys, the two halves of LM Studio's tokens come in the first frame (`sk-lm-IDENTIFIER:PASSKEY`), or any
key as the Authorization of the upgrade.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from llamarunner.dialects.lmstudio import sdk_frames as frames
from llamarunner.dialects.lmstudio.sdk_errors import serialized
from llamarunner.errors import (
    InvalidRequest,
    LlamaRunnerError,
    RateLimited,
    RequestTimeout,
    RouteNotFound,
    ServerError,
    ShuttingDown,
    Unauthorized,
)
from llamarunner.limits import Bucket
from llamarunner.server.connection import drop
from llamarunner.server.drain import STOPPING
from llamarunner.server.sdk_endpoints import Caller, Channel, Namespace, Rpc, Streaming

log = logging.getLogger("llamarunner.server")

HELLO_SECONDS = 10.0
MESSAGES_PER_SECOND = 200
BURST = 1000
BYTES_LIKE_A_MESSAGE = 262_144  # a longer one counts as several
MOST_CALLS = 64  # at once
MOST_CHANNELS = 64
MOST_BYTES = 64_000_000  # that all calls, or all channels, hold before there may be one more
CLOSE_SECONDS = 1.0  # for the client's part of a closing handshake
TOKEN = re.compile(r"sk-lm-[A-Za-z0-9]{8}:[A-Za-z0-9]{20}")  # as LM Studio makes them
OVER = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


class Socket:
    """One open websocket of a client that has said who it is."""

    def __init__(
        self, request: web.Request, socket: web.WebSocketResponse, caller: Caller, namespace: Namespace
    ) -> None:
        self._request = request
        self._socket = socket
        self._caller = caller
        self._namespace = namespace
        self._stall = caller.view.services.settings.server.write_stall_seconds
        self._bucket = Bucket(MESSAGES_PER_SECOND, BURST, time.monotonic_ns())
        self._channels: dict[int, Channel] = {}
        self._calls: dict[int, int] = {}  # by id: bytes that they hold
        self._held: dict[int, int] = {}  # by channels, the same
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._unknown = 0
        self._leaving = asyncio.Event()
        self._ending: tuple[int, str] | None = None  # the code and the reason
        self._listening = asyncio.timeout(None)
        self._group = asyncio.TaskGroup()

    def leave(self) -> None:
        """Close it, as soon as what runs is over."""
        self._leaving.set()

    async def serve(self) -> None:
        """Serve until either side closes; all that runs ends with it."""
        async with self._group:
            farewell = self._group.create_task(self._farewell())
            try:
                async with self._listening:
                    await self._listen()
            except TimeoutError:
                if self._ending:
                    await self._close(*self._ending)
            except ConnectionError:
                pass
            self._ending = self._ending or (WSCloseCode.OK, "")
            for task in (farewell, *self._running):
                task.cancel()

    # ── from the client ────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        while True:
            message = await self._next()
            if message.type in OVER:
                return
            if message.type is WSMsgType.PING:
                await self._say(partial(self._socket.pong, message.data))
            elif message.type is WSMsgType.TEXT:
                await self._heed(message.data)
            elif message.type is WSMsgType.BINARY:
                await self._warn("Frames must be texts in JSON.")
            self._bucket.take(time.monotonic_ns())
            if pause := self._bucket.charge(len(message.data or "") / BYTES_LIKE_A_MESSAGE):
                await asyncio.sleep(pause)
            await self._make_room()

    async def _next(self) -> WSMessage:
        """The next message; a client that is silent is asked whether it is there. Raises ConnectionError.

        Only here, for aiohttp's own pings take a client for gone whose answer waits behind what we do not read yet.
        """
        with contextlib.suppress(TimeoutError):
            return await self._socket.receive(self._stall)
        await self._say(self._socket.ping)
        try:
            return await self._socket.receive(self._stall)
        except TimeoutError:
            drop(self._request)
            raise ConnectionResetError("the client is gone") from None

    async def _heed(self, text: str) -> None:
        try:
            frame, caller = frames.frame(text), self._caller
            account = caller.view.recognise_again(caller.client, caller.headers)
            self._caller = replace(caller, account=account)  # settings may have changed
        except Unauthorized:
            self._end(WSCloseCode.POLICY_VIOLATION, "The API key is no longer valid.")
            return
        except InvalidRequest as error:
            await self._warn(error.message)
            return
        match frame:
            case frames.RpcCall():
                await self._call(frame, len(text))
            case frames.ChannelCreate():
                await self._open(frame, len(text))
            case frames.ChannelSend():
                await self._pass_on(frame)
            case frames.KeepAlive():
                await self._tell(frames.keep_alive_ack())
            case frames.SignalSubscribe():
                unknown = RouteNotFound(f"There is no signal '{frame.endpoint}' in '{self._caller.namespace}'.")
                await self._tell(frames.signal_error(frame.type, frame.subscribe_id, serialized(unknown)))
            case frames.Warned():
                log.warning("a client of /%s warns: %.500s", self._caller.namespace, frame.warning)

    async def _call(self, frame: frames.RpcCall, size: int) -> None:
        work, number = self._namespace.rpcs.get(frame.endpoint), frame.call_id
        if number in self._calls:
            await self._warn(f"A call with the id {number} is running.")
        elif work is None:
            error = await self._not_known("rpc", frame.endpoint)
            await self._tell(frames.rpc_error(number, serialized(error)))
        else:
            self._calls[number] = size
            self._spawn(self._answer(frame, work), self._calls, number)

    async def _open(self, frame: frames.ChannelCreate, size: int) -> None:
        work, number = self._namespace.channels.get(frame.endpoint), frame.channel_id
        if number in self._channels:
            await self._warn(f"A channel with the id {number} is open.")
        elif work is None:
            error: LlamaRunnerError = await self._not_known("channel", frame.endpoint)
            await self._tell(frames.channel_error(number, serialized(error)))
        elif len(self._held) >= MOST_CHANNELS or sum(self._held.values()) > MOST_BYTES:
            error = RateLimited("This socket has too many channels, or they hold too much.", retry_after=1)
            await self._tell(frames.channel_error(number, serialized(error)))
        else:
            channel = Channel(lambda packet: self._tell(frames.channel_send(number, packet)))
            self._channels[number], self._held[number] = channel, size
            self._spawn(self._stream(frame, work, channel), self._held, number)

    async def _pass_on(self, frame: frames.ChannelSend) -> None:
        """Tell a channel that its client wants no more of it, which is all that clients have to say."""
        channel = self._channels.get(frame.channel_id)
        if channel is None:
            return  # it has just ended
        if frame.ack_id is not None:
            await self._tell(frames.channel_ack(frame.channel_id, frame.ack_id))
        if isinstance(frame.message, dict) and frame.message.get("type") in ("cancel", "stop"):
            channel.stop()

    async def _not_known(self, kind: str, endpoint: str) -> RouteNotFound:
        """Warn as LM Studio does; it says nothing else, and its clients wait for ever."""
        name = "rpcCall" if kind == "rpc" else "channelCreate"
        await self._warn(f"Received {name} for unknown endpoint, endpoint = {endpoint}", f"{kind}EndpointUnknown")
        return RouteNotFound(f"There is no endpoint '{endpoint}' in '{self._caller.namespace}'.")

    async def _warn(self, text: str, kind: str | None = None) -> None:
        self._unknown += 1
        if self._unknown <= frames.MOST_UNKNOWN:
            await self._tell(frames.warning(text, kind))

    # ── what runs ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, frame: frames.RpcCall, work: Rpc) -> None:
        async def result() -> bytes:
            return frames.rpc_result(frame.call_id, await work(self._caller, frame.parameter))

        await self._tell_end(result, partial(frames.rpc_error, frame.call_id))

    async def _stream(self, frame: frames.ChannelCreate, work: Streaming, channel: Channel) -> None:
        async def end() -> bytes:
            await work(self._caller, frame.creation_parameter, channel)
            return frames.channel_close(frame.channel_id)

        try:
            await self._tell_end(end, partial(frames.channel_error, frame.channel_id))
        finally:
            del self._channels[frame.channel_id]

    async def _tell_end(self, work: Callable[[], Awaitable[bytes]], failed: Callable[[object], bytes]) -> None:
        """Do the work and send its last frame, or its error."""
        try:
            if self._caller.view.services.drain.active:
                raise ShuttingDown(STOPPING, retry_after=5)
            said = await work()
        except (RequestTimeout, ConnectionError):
            drop(self._request)
            return
        except LlamaRunnerError as error:
            said = failed(serialized(error))
        except Exception:
            log.exception("/%s: unexpected error", self._caller.namespace)
            said = failed(serialized(ServerError("The server met an unexpected error; its log has it.")))
        with contextlib.suppress(ConnectionError):
            await self._tell(said)

    def _spawn(self, work: Coroutine[None, None, None], holding: dict[int, int], number: int) -> None:
        task = self._group.create_task(work)
        self._running.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            del holding[number]
            self._room.set()

        task.add_done_callback(over)

    async def _make_room(self) -> None:
        """Wait while too many calls run; what the client goes on to send waits with it."""
        while len(self._calls) >= MOST_CALLS or sum(self._calls.values()) > MOST_BYTES:
            self._room.clear()
            await self._room.wait()

    # ── to the client ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _tell(self, frame: bytes) -> None:
        """Send a frame; a client that does not take it in time is dropped. Raises ConnectionError."""
        await self._say(partial(self._socket.send_frame, frame, WSMsgType.TEXT))

    async def _say(self, sending: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await sending()
        except TimeoutError:
            drop(self._request)
            raise ConnectionResetError("the client takes nothing") from None

    # ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _farewell(self) -> None:
        """When the server stops: let what runs end, then close."""
        await self._leaving.wait()
        for channel in tuple(self._channels.values()):
            if channel.lasting:
                channel.stop()
        if self._running:
            await asyncio.wait(tuple(self._running))
        self._end(WSCloseCode.GOING_AWAY, STOPPING)

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
            drop(self._request)


def credential(hello: frames.Hello, headers: Mapping[str, str]) -> dict[str, str]:
    """The key that a client brings, as a header: that of the upgrade, or the token of whose halves it consists."""
    given = {name: headers[name] for name in ("Authorization", "x-api-key") if name in headers}
    token = f"sk-lm-{hello.client_identifier}:{hello.client_passkey}"
    return given or ({"Authorization": f"Bearer {token}"} if TOKEN.fullmatch(token) else {})
