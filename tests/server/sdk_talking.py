"""A client's end of the sockets of LM Studio's SDKs, as bare as the protocol allows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import WSMsgType
from doors import House

Json = dict[str, Any]

HELLO = {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "secret"}
LONG = json.dumps({"tokens": 1000, "delay": 0.02})  # what tells the fake child to answer for long


def stack(**values: Any) -> Json:
    """A stack of one layer; dots in keys are written as __."""
    fields = [{"key": key.replace("__", "."), "value": value} for key, value in values.items()]
    return {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]}


def named(identifier: str) -> Json:
    return {"type": "query", "query": {"identifier": identifier}}


def history(*texts: str) -> Json:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]} for text in texts]}


def asking(text: str = "hello", config: Json | None = None, model: str = "chat", **more: Any) -> Json:
    """What a prediction is asked."""
    return {
        "modelSpecifier": named(model),
        "history": history(text),
        "predictionConfigStack": config or stack(),
        **more,
    }


class Line:
    """One socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._ids = 0

    async def send(self, *frames: Json) -> None:
        for frame in frames:
            await self.socket.send_str(json.dumps(frame))

    async def next(self, *kinds: str, seconds: float = 10) -> Json:
        """The next frame, or the next one of these types."""
        async with asyncio.timeout(seconds):
            while True:
                frame: Json = json.loads(await self.socket.receive_str())
                if not kinds or frame.get("type") in kinds:
                    return frame

    def call(self, endpoint: str, parameter: object = None) -> Json:
        """A frame that calls; its id is a new one."""
        self._ids += 1
        asked = {} if parameter is None else {"parameter": parameter}
        return {"type": "rpcCall", "endpoint": endpoint, "callId": self._ids, **asked}

    async def rpc(self, endpoint: str, parameter: object = None) -> Json:
        """Call, and return the frame that answers."""
        frame = self.call(endpoint, parameter)
        await self.send(frame)
        while True:
            answer = await self.next("rpcResult", "rpcError")
            if answer["callId"] == frame["callId"]:
                return answer

    async def open(self, endpoint: str, parameter: object = None) -> int:
        """Open a channel, and return its id."""
        self._ids += 1
        asked = {} if parameter is None else {"creationParameter": parameter}
        await self.send({"type": "channelCreate", "endpoint": endpoint, "channelId": self._ids, **asked})
        return self._ids

    async def stop(self, channel: int, kind: str = "cancel") -> None:
        await self.send({"type": "channelSend", "channelId": channel, "message": {"type": kind}})

    async def packet(self, channel: int, *kinds: str) -> Json:
        """The next packet of a channel, or the next one of these types."""
        while True:
            frame = await self.next("channelSend")
            if frame["channelId"] == channel and (not kinds or frame["message"]["type"] in kinds):
                packet: Json = frame["message"]
                return packet

    async def until_end(self, channel: int) -> tuple[list[Json], Json]:
        """All packets of a channel, and the frame that ends it."""
        packets: list[Json] = []
        while True:
            frame = await self.next("channelSend", "channelClose", "channelError")
            if frame["channelId"] != channel:
                continue
            if frame["type"] != "channelSend":
                return packets, frame
            packets.append(frame["message"])

    async def stream(self, endpoint: str, parameter: object = None) -> tuple[list[Json], Json]:
        return await self.until_end(await self.open(endpoint, parameter))

    async def load(self, *models: str) -> None:
        """Have models loaded."""
        for model in models:
            _, end = await self.stream("getOrLoad", {"identifier": model, "loadConfigStack": stack()})
            assert end["type"] == "channelClose", end

    async def closed(self) -> int | None:
        """Read until the server closes the socket; its code."""
        async with asyncio.timeout(20):
            while (await self.socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
                pass
        return self.socket.close_code


@asynccontextmanager
async def dialled(house: House, namespace: str, hello: Json | None = HELLO, **options: Any) -> AsyncIterator[Line]:
    """Open the socket of a namespace; without a hello it is left to the caller."""
    url = house.url.replace("http:", "ws:") + f"/{namespace}"
    async with house.client.ws_connect(url, **options) as socket:
        line = Line(socket)
        if hello is not None:
            await line.send(hello)
            assert await line.next() == {"success": True}
        yield line


def texts(packets: Sequence[Json]) -> str:
    """The text of a prediction."""
    return "".join(packet["fragment"]["content"] for packet in packets if packet["type"] == "fragment")
