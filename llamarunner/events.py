"""What happened: one frozen dataclass per fact, in the past tense, and the bus that tells.

`Bus.publish` never waits. Every subscriber has a bounded queue of its own; one that is slow loses its oldest events
and can read in `Subscription.lost` how many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

QUEUE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `name` is what webhooks and websockets call it."""

    name: ClassVar[str]


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
    reason: str  # asked, idle, evicted, shutdown


@dataclass(frozen=True, slots=True)
class ModelFailed(Event):
    name: ClassVar[str] = "model.failed"
    model_id: str
    cause: str


class Subscription:
    """A bounded mailbox; iterate it to receive events in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LENGTH)
        self.lost = 0

    def put(self, event: Event) -> None:
        if self._queue.full():
            self._queue.get_nowait()
            self.lost += 1
        self._queue.put_nowait(event)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self._queue.get()


class Bus:
    """Delivers every event to every open subscription."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
