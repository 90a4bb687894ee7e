"""What the process of a model prints, of this life and of those before, and what it goes on to print.

A log may hold prompts, if the runtime is told to be verbose; so it is for those who may manage models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from aiohttp import web

from llamarunner.dialects.wire import COMMENT, sse
from llamarunner.errors import Forbidden, RequestTimeout, ShuttingDown, Unauthorized
from llamarunner.fleet.output import MOST_LINES, Follower, News
from llamarunner.server import query
from llamarunner.server.connection import drop
from llamarunner.server.drain import STOPPING
from llamarunner.server.relay import EVENT_STREAM, STREAM_HEADERS
from llamarunner.server.services import CLIENT, TICKET, VIEW, Services
from llamarunner.server.watch import Patience, Phase, Watch

DEFAULT_TAIL = 100  # lines
PLAIN = "text/plain"


async def logs(request: web.Request) -> web.StreamResponse:
    """Give the last `?tail=N` lines; with `?follow=true` go on until the client leaves, also while the model does not
    run. Plain text, or server-sent events if the client accepts them.
    """
    view = request.app[VIEW]
    entry = view.find(request.match_info["id"])
    view.check_management(request[CLIENT])
    tail = query.count(request, "tail", DEFAULT_TAIL, MOST_LINES)
    follow = query.flag(request, "follow")
    kind = EVENT_STREAM if EVENT_STREAM in request.headers.get("Accept", "") else PLAIN
    output = view.services.supervisor.output(entry)
    if follow and request.method == "GET":

        def check() -> None:
            view.recognise_again(request[CLIENT], request.headers)
            view.check_management(request[CLIENT])
            if not view.shows(entry):
                raise Forbidden("The model is no longer to be seen.")

        return await _followed(request, kind, output.follow(tail), check)
    body = _framed(kind, News(output.tail(tail), 0))
    return web.Response(body=body, content_type=kind, charset="utf-8")


async def _followed(
    request: web.Request, kind: str, following: AbstractContextManager[Follower], check: Callable[[], None]
) -> web.StreamResponse:
    """Give lines as they come, for as long as `check` does not raise: settings and keys may change."""
    services = request.app[VIEW].services
    if services.drain.active:
        raise ShuttingDown(STOPPING, retry_after=5)
    request[TICKET].begin_stream()
    response = web.StreamResponse(headers={"Content-Type": f"{kind}; charset=utf-8", **STREAM_HEADERS})
    try:
        async with Watch(Patience.of(services.settings.server, pulse=False)) as watch:
            with services.drain.hosting(lambda: watch.end(ShuttingDown(STOPPING))), following as follower:
                await response.prepare(request)
                while True:
                    watch.phase(Phase.NEWS)
                    said = await _next(services, kind, follower)
                    check()
                    watch.phase(Phase.CLIENT)
                    await response.write(said)
    except (ShuttingDown, Unauthorized, Forbidden):
        pass  # the end of a log is no failure
    except RequestTimeout:
        drop(request)
    return response


async def _next(services: Services, kind: str, follower: Follower) -> bytes:
    """Wait for lines; events are kept alive by comments, plain text has nothing of the kind."""
    pause = services.settings.server.sse_keepalive_seconds if kind == EVENT_STREAM else 0
    try:
        async with asyncio.timeout(pause or None):
            return _framed(kind, await follower.news())
    except TimeoutError:
        return COMMENT


def _framed(kind: str, news: News) -> bytes:
    if kind == EVENT_STREAM:
        lost = sse(str(news.lost).encode(), event="lost") if news.lost else b""
        return lost + b"".join(sse(line.encode()) for line in news.lines)
    gap = f"[{news.lost} lines are lost]\n" if news.lost else ""
    return (gap + "".join(f"{line}\n" for line in news.lines)).encode()
