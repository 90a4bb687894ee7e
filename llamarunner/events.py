"""What happened: one frozen dataclass per fact, in the past tense, and the bus that tells.

`Bus.publish` never waits. Every subscriber has a bounded queue of its own; one that is slow loses its oldest events
and can read in `Subscription.lost` how many. A listener is called at once, and misses nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import ClassVar

QUEUE_LENGTH = 1024


def timestamp(moment: float) -> str:
    """Write a `time.time()` as all our answers do: UTC, ISO 8601, whole seconds."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `name` is what webhooks and websockets call it."""

    name: ClassVar[str]
    at: float = field(default_factory=time.time, kw_only=True, compare=False)  # Unix time

    def payload(self) -> dict[str, object]:
        """Say it as the LlamaRunner Pro API does: the event, when it was (UTC, ISO 8601), and its data."""
        data = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "at"}
        return {"event": self.name, "timestamp": timestamp(self.at), "data": data}


@dataclass(frozen=True, slots=True)
class ServerStarted(Event):
    name: ClassVar[str] = "server.started"
    version: str
    urls: dict[str, str]  # door → base URL


@dataclass(frozen=True, slots=True)
class ServerStopping(Event):
    name: ClassVar[str] = "server.stopping"
    version: str


@dataclass(frozen=True, slots=True)
class ModelLoading(Event):
    name: ClassVar[str] = "model.loading"
    model_id: str


@dataclass(frozen=True, slots=True)
class ModelStarted(Event):
    name: ClassVar[str] = "model.started"
    model_id: str
    port: int
    seconds: float  # from spawn to ready


@dataclass(frozen=True, slots=True)
class ModelStopped(Event):
    name: ClassVar[str] = "model.stopped"
    model_id: str
    reason: str  # asked, idle, evicted, cancelled, shutdown


@dataclass(frozen=True, slots=True)
class ModelFailed(Event):
    name: ClassVar[str] = "model.failed"
    model_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class RequestFinished(Event):
    """One request is over, well or not; its prompt and its answer are not told."""

    name: ClassVar[str] = "request.finished"
    request_id: str
    door: str
    client: str  # its address
    method: str
    path: str
    status: int  # 499: the client left
    seconds: float
    model_id: str | None = None
    stream: bool = False
    first_token_seconds: float | None = None  # until the first byte of the answer's body
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TranscriptionProgress(Event):
    name: ClassVar[str] = "transcription.progress"
    request_id: str
    model_id: str
    seconds: float  # of the audio, done so far
    duration: float | None  # seconds of the whole audio, if known yet


@dataclass(frozen=True, slots=True)
class TranscriptionCompleted(Event):
    name: ClassVar[str] = "transcription.completed"
    request_id: str
    model_id: str
    task: str  # transcribe, translate
    language: str | None
    duration: float  # seconds of audio
    processing_seconds: float
    text: str | None = None  # only if the owner wants it told


@dataclass(frozen=True, slots=True)
class TranscriptionFailed(Event):
    name: ClassVar[str] = "transcription.failed"
    request_id: str
    model_id: str
    task: str
    cause: str


NAMES = frozenset(kind.name for kind in Event.__subclasses__())  # what can be subscribed to; other rooms' own are not


class Subscription:
    """A bounded mailbox; iterate it to receive events in order. `only` are the names it takes in, None is all."""

    def __init__(self, only: Collection[str] | None = None) -> None:
        self._only = only
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LENGTH)
        self.lost = 0

    def put(self, event: Event) -> None:
        if self._only is not None and event.name not in self._only:
            return
        if self._queue.full():
            self._queue.get_nowait()
            self.lost += 1
        self._queue.put_nowait(event)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self._queue.get()


class Bus:
    """Delivers every event to every listener and every open subscription."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []
        self._subscriptions: set[Subscription] = set()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call a function with every event from now on; it must be quick, and raise nothing."""
        self._listeners.append(listener)

    def publish(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextmanager
    def subscribe(self, only: Collection[str] | None = None) -> Iterator[Subscription]:
        """Hear what is published until the end of the block; `only` are the names of the events that matter."""
        subscription = Subscription(only)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
