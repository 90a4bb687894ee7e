"""A client's end of the websocket, of aiohttp or of `websockets`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import websockets
from aiohttp import WSMsgType
from doors import House

Json = dict[str, Any]

LONG = {"tokens": 1000, "delay": 0.02}


def asking(**fields: Any) -> Json:
    """A chat; `fake` tells the child how to misbehave."""
    options = {"fake": fields.pop("fake")} if "fake" in fields else {}
    return {"type": "chat_message", "model": "chat", "message": "hello", "options": options, **fields}


class Talk:
    """A client's end of a websocket, whichever library it is."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, *messages: Json) -> None:
        for message in messages:
            text = json.dumps(message)
            await (self.socket.send_str(text) if self._is_aiohttp else self.socket.send(text))

    async def next(self, kind: str | None = None) -> Json:
        """The next message, or the next one of a type."""
        async with asyncio.timeout(5):
            while True:
                message = json.loads(await (self.socket.receive_str() if self._is_aiohttp else self.socket.recv()))
                if kind in (None, message["type"]):
                    return message

    async def until_end(self, chat_id: str) -> list[Json]:
        """All messages of a chat."""
        messages: list[Json] = []
        while not messages or messages[-1]["type"] not in ("chat_end", "error"):
            message = await self.next()
            messages += [message] if message["id"] == chat_id else []
        return messages

    async def closed(self) -> int | None:
        """Read until the server closes the socket; its code."""
        async with asyncio.timeout(10):
            while (frame := await self.socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED):
                if frame.type is WSMsgType.ERROR:
                    raise frame.data
            return self.socket.close_code

    @property
    def _is_aiohttp(self) -> bool:
        return isinstance(self.socket, aiohttp.ClientWebSocketResponse)


@asynccontextmanager
async def connected(house: House, client: str = "aiohttp", **options: Any) -> AsyncIterator[Talk]:
    url = house.url.replace("http:", "ws:") + "/v1/ws"
    connect = house.client.ws_connect(url, **options) if client == "aiohttp" else websockets.connect(url, **options)
    async with connect as socket:
        yield Talk(socket)
