"""The server's log through LM Studio's sockets: its own lines, and what models are asked, as their templates write it.

Both may hold what others have said; so they are for those who may manage models, and that is asked again with every
line. Who is slow loses the oldest lines.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from llamarunner.dialects import strict_json
from llamarunner.errors import InvalidRequest
from llamarunner.server.client import BrokenOff, CannotConnect, Client
from llamarunner.server.sdk_endpoints import Caller, Channel, Streaming
from llamarunner.server.sdk_models import path_of
from llamarunner.server.tap import Asked

MOST_KEPT = 256  # lines that wait, and what models were asked
FORMAT_SECONDS = 2.0
LOGGER = "llamarunner"
LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"))
CHATS = ("/v1/chat/completions", "/v1/messages")  # their bodies have messages
TEXTS = ("/v1/completions",)

Data = Mapping[str, object]


class News:
    """What waits to be told; the oldest goes when it is too much."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Data | Asked]] = deque(maxlen=MOST_KEPT)
        self._signal = asyncio.Event()
        self._over = False

    def add(self, item: Data | Asked, at: float | None = None) -> None:
        """`at` is the Unix time, if it is not now."""
        self._waiting.append((time.time() if at is None else at, item))
        self._signal.set()

    def end(self) -> None:
        self._over = True
        self._signal.set()

    async def next(self) -> tuple[float, Data | Asked] | None:
        """Wait for the next one; None at the end."""
        while not self._waiting and not self._over:
            self._signal.clear()
            await self._signal.wait()
        return None if self._over else self._waiting.popleft()


class Lines(logging.Handler):
    """Hands the lines of the log to a listener of the event loop; it may be called from any thread."""

    def __init__(self, hear: Callable[[Data, float], None]) -> None:
        super().__init__(logging.INFO)
        self._hear = hear
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for least, name in LEVELS if record.levelno >= least), "debug")
        line = {"type": "server.log", "content": record.getMessage(), "level": level}
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._hear, line, record.created)


@contextmanager
def _logged(hear: Callable[[Data, float], None]) -> Iterator[None]:
    handler, logger = Lines(hear), logging.getLogger(LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


async def _stream(caller: Caller, parameter: object, channel: Channel) -> None:
    """Tell the log until the client wants no more, or may no longer hear it."""
    view, news = caller.view, News()
    view.check_management(caller.client)
    channel.lasting = True
    channel.when_stopped(news.end)
    with _logged(news.add), view.services.tap.listening(news.add):
        while (one := await news.next()) is not None:
            at, data = one
            view.recognise_again(caller.client, caller.headers)
            view.check_management(caller.client)
            if isinstance(data, Asked):
                if not view.shows(data.entry):
                    continue
                data = await _input(view.services.client, data)
            await channel.send({"type": "log", "log": {"timestamp": round(at * 1000), "data": data}})


async def _input(client: Client, asked: Asked) -> Data:
    text = await _formatted(client, asked)
    entry = asked.entry
    told = {"input": text, "modelPath": path_of(entry), "modelIdentifier": entry.instance_id}
    return {"type": "llm.prediction.input", **told}


async def _formatted(client: Client, asked: Asked) -> str:
    """What the model reads: its template is asked for it; else the body as it is."""
    with suppress(InvalidRequest, CannotConnect, BrokenOff, TimeoutError):
        document = strict_json.loads_object(asked.body)
        if asked.path in TEXTS and isinstance(document.get("prompt"), str):
            return str(document["prompt"])
        if asked.path in CHATS:
            async with (
                asyncio.timeout(FORMAT_SECONDS),
                await client.request("POST", asked.endpoint, "/apply-template", asked.body) as exchange,
            ):
                said = strict_json.loads_object(await exchange.whole())
                if exchange.status == 200 and isinstance(said.get("prompt"), str):
                    return str(said["prompt"])
    return asked.body.decode(errors="replace")


CHANNELS: Mapping[str, Streaming] = {"streamLogs": _stream}
