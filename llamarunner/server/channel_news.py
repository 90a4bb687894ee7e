"""What a websocket is told without asking each time: events, and what models print.

Nobody can make the server keep news for them: events wait in a mailbox of limited length, lines in the output of
their model, and who is too slow is told how many went by. Rights are asked for again with every piece of news, since
settings and keys may change.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Coroutine
from fnmatch import fnmatchcase
from functools import partial

from aiohttp import web

from llamarunner.errors import Forbidden, InvalidRequest, LlamaRunnerError, ModelNotFound, Unauthorized
from llamarunner.events import NAMES, Event, RequestFinished, TranscriptionCompleted
from llamarunner.server.channel_messages import (
    MOST_GLOBS,
    MOST_LOGS,
    EventMessage,
    EventsLost,
    LogLines,
    Message,
    Subscribe,
    Subscribed,
    Unsubscribe,
    refusal,
)
from llamarunner.server.services import ALL_MODELS, CLIENT, SCOPE, VIEW

log = logging.getLogger("llamarunner.server")

PRIVATE = frozenset({RequestFinished.name})  # they tell who the other clients are, so they are for the owner

Work = Callable[[], Coroutine[None, None, None]]
Spawn = Callable[[Work], asyncio.Task[None]]


class News:
    """The subscriptions of one connection, which has `tell` to send a message.

    `spawn` starts a task that ends with it, and `expel` ends it because its key holds no more.
    """

    def __init__(
        self, request: web.Request, tell: Callable[[Message], Awaitable[None]], spawn: Spawn, expel: Callable[[], None]
    ) -> None:
        self._view = request.app[VIEW]
        self._client = request[CLIENT]
        self._headers = request.headers
        self._expel = expel
        self._tell = tell
        self._spawn = spawn
        self._globs: dict[str, None] = {}
        self._events: asyncio.Task[None] | None = None
        self._logs: dict[str, asyncio.Task[None]] = {}

    def subscribe(self, wanted: Subscribe) -> Subscribed:
        """Take up what is wanted, or nothing of it. Raises InvalidRequest, Forbidden or ModelNotFound."""
        self._forget_refused()
        for number, glob in enumerate(wanted.events):
            self._check_glob(glob, f"events.{number}")
        if wanted.logs:
            self._view.check_management(self._client)
        models = dict.fromkeys(self._view.find(name).id for name in wanted.logs)
        globs = {**self._globs, **dict.fromkeys(wanted.events)}
        if len(globs) > MOST_GLOBS or len({**self._logs, **models}) > MOST_LOGS:
            most = f"{MOST_GLOBS} globs and the logs of {MOST_LOGS} models"
            raise InvalidRequest(f"One connection can be subscribed to {most}, no more.", param="events")
        self._globs = globs
        if globs and self._events is None:
            self._events = self._spawn(partial(self._until_refused, self._tell_events))
        for model in [model for model in models if model not in self._logs]:
            self._logs[model] = self._spawn(partial(self._until_refused, partial(self._tell_lines, model, wanted.tail)))
        return Subscribed(type="subscribed", id=wanted.id, events=[*self._globs], logs=[*self._logs])

    def unsubscribe(self, unwanted: Unsubscribe) -> Subscribed:
        """Drop what is named, or all if nothing is; what is not subscribed to is no mistake."""
        self._forget_refused()
        everything = not (unwanted.events or unwanted.logs)
        for glob in [*self._globs] if everything else unwanted.events:
            self._globs.pop(glob, None)
        for model in [*self._logs] if everything else [self._known(name) for name in unwanted.logs]:
            if task := self._logs.pop(model, None):
                task.cancel()
        if self._events and not self._globs:
            self._events.cancel()
            self._events = None
        return Subscribed(type="unsubscribed", id=unwanted.id, events=[*self._globs], logs=[*self._logs])

    def _forget_refused(self) -> None:
        self._logs = {model: task for model, task in self._logs.items() if not task.done()}
        if self._events and self._events.done():
            self._events, self._globs = None, {}

    # ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_glob(self, glob: str, param: str) -> None:
        named = {name for name in NAMES if fnmatchcase(name, glob)}
        if not named:
            raise InvalidRequest(f"No event has a name like this; there are {', '.join(sorted(NAMES))}.", param=param)
        if named <= PRIVATE and not self._manages():
            raise Forbidden("These events are only told where models may be managed.", param=param)

    async def _tell_events(self) -> None:
        with self._view.services.bus.subscribe(NAMES) as mailbox:
            told = 0
            async for event in mailbox:
                if mailbox.lost > told:
                    count, told = mailbox.lost - told, mailbox.lost
                    await self._tell(EventsLost(type="events_lost", count=count))
                if any(fnmatchcase(event.name, glob) for glob in self._globs) and self._may_hear(event):
                    await self._tell(EventMessage.model_validate({"type": "event", **self._fit(event).payload()}))

    def _may_hear(self, event: Event) -> bool:
        self._view.recognise_again(self._client, self._headers)
        if event.name in PRIVATE and not self._manages():
            return False
        if not hasattr(event, "model_id"):
            return True
        return SCOPE.get() == ALL_MODELS if event.model_id is None else self._view.shows_id(event.model_id)

    def _fit(self, event: Event) -> Event:
        """Leave out of an event what is for the owner: what others have said."""
        if isinstance(event, TranscriptionCompleted) and not self._manages():
            return dataclasses.replace(event, text=None)
        return event

    def _manages(self) -> bool:
        try:
            self._view.check_management(self._client)
        except Forbidden:
            return False
        return True

    # ── logs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _tell_lines(self, model: str, tail: int) -> None:
        entry = self._view.find(model)
        with self._view.services.supervisor.output(entry).follow(tail) as follower:
            while True:
                news = await follower.news()
                self._view.recognise_again(self._client, self._headers)
                self._view.check_management(self._client)
                if not self._view.shows_id(model):
                    raise ModelNotFound(model, tuple(entry.id for entry in self._view.entries))
                await self._tell(LogLines(type="log", model=model, lines=news.lines, lost=news.lost))

    def _known(self, name: str) -> str:
        return name if name in self._logs else self._view.find(name).id

    async def _until_refused(self, telling: Work) -> None:
        """Tell news until the right to them is gone, which is told too."""
        try:
            await telling()
        except ConnectionError:
            raise
        except LlamaRunnerError as error:
            await self._tell(refusal(error, None))
            if isinstance(error, Unauthorized):
                self._expel()
        except Exception:
            log.exception("news for a websocket: unexpected error")
