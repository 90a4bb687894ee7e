"""A life of a model's process, and the right to use it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.fleet.child import Child
from llamarunner.fleet.launch import Endpoint, Task
from llamarunner.fleet.unit import Death

if TYPE_CHECKING:
    from llamarunner.fleet.supervisor import Supervisor

AUTOPSY_SECONDS = 0.5


@dataclass(slots=True)
class Instance:
    """One life of one unit, from spawn to reaped."""

    entry: ModelEntry
    task: Task
    settings: ModelSettings
    began: float = field(default_factory=time.monotonic)
    ready_at: float = 0.0  # time.monotonic() too; 0 before
    runner: asyncio.Task[Death] | None = None
    child: Child | None = None
    endpoint: Endpoint | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    death: Death | None = None
    suspected: bool = False
    given_up: bool = False  # a caller left in the middle, and its work may still go on
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How a caller wants a model to be run; it holds for all, until another one is wanted or the model is unloaded.

    Of `settings` those count that are set and that a caller may wish (`subject.WISHABLE`); a process that runs
    otherwise makes way when its callers are done. `ttl` are the seconds of idleness before the model is unloaded;
    infinity is for ever. `first_ttl` are the same, and count only if this caller is the one that has it loaded. With
    `keep` it stays until it is stopped by hand; False takes that back.
    """

    settings: ModelSettings | None = None
    ttl: float | None = None
    first_ttl: float | None = None
    keep: bool | None = None


AS_IT_IS = Manner()


class Lease:
    """The right to use one model until the `async with` ends; made by `Supervisor.lease`."""

    def __init__(self, supervisor: Supervisor, entry: ModelEntry, task: Task, manner: Manner) -> None:
        self._supervisor = supervisor
        self._entry = entry
        self._task = task
        self._manner = manner
        self._instance: Instance | None = None
        self.queue_seconds = self.load_seconds = 0.0  # of waiting for it, without and for its loading

    async def __aenter__(self) -> Self:
        """Wait until the model is ready. Raises ModelFailed, QueueFull, ShuttingDown or ServiceUnavailable."""
        asked = time.monotonic()
        self._instance = instance = await self._supervisor._admit(self, self._entry, self._task, self._manner)
        self.load_seconds = max(0.0, instance.ready_at - max(asked, instance.began))
        self.queue_seconds = time.monotonic() - asked - self.load_seconds
        return self

    async def __aexit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        assert self._instance
        self._supervisor._note_use(self._entry, self._task)
        self._supervisor._leave(self)
        self._supervisor._wind_down(self._instance, given_up=kind is not None)

    @property
    def endpoint(self) -> Endpoint:
        assert self._instance is not None, "a lease is used inside its async with"
        assert self._instance.endpoint is not None
        return self._instance.endpoint

    async def autopsy(self) -> str | None:
        """Why the child died, waiting up to half a second for the news; None if it seems to live."""
        assert self._instance
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._instance.gone.wait(), AUTOPSY_SECONDS)
        return self._instance.death.cause if self._instance.death else None

    def suspect(self) -> None:
        """Report a child that fell silent: it is probed, and killed if it stays silent."""
        assert self._instance
        self._supervisor._suspect(self._instance)
