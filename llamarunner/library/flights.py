"""Pulls that callers share: one flight per model, which goes on as long as one of them is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from llamarunner.errors import LlamaRunnerError, ServerError, ShuttingDown

Line = dict[str, Any]  # status, and for downloads digest, total and completed
Tell = Callable[[Line], None]
Work = Callable[[Tell], Coroutine[Any, Any, None]]

TELL_SECONDS = 0.06  # between two lines about the same download, as Ollama has it


class Flight:
    """One piece of work, told in lines that each caller hears from the beginning.

    Of the lines about one download only the newest is kept, so that a slow caller costs nothing.
    """

    def __init__(self, work: Work, group: asyncio.TaskGroup) -> None:
        self._work = work
        self._lines: list[Line] = []
        self._news = asyncio.Event()
        self._told_at = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._error: LlamaRunnerError | None = None
        self._callers = 0
        self.over = False
        self.task = group.create_task(self._run())
        self.task.add_done_callback(self._land)

    @property
    def joinable(self) -> bool:
        """Whether a caller may still come aboard: not once the last has left."""
        return not self.over and not self.task.cancelling()

    async def lines(self) -> AsyncGenerator[Line, None]:
        """Yield the lines until the work is done; raise what went wrong. The work ends with the last caller."""
        self._callers += 1
        try:
            async for line in self._follow():
                yield line
        finally:
            self._callers -= 1
            if not self._callers and not self.over:
                self.task.cancel()

    async def _follow(self) -> AsyncGenerator[Line, None]:
        place, last = 0, None
        while True:
            while place < len(self._lines):
                line = self._lines[place]
                if line is not last:
                    last = line
                    yield line
                if place + 1 == len(self._lines):
                    break
                place += 1
            if self.over and (not self._lines or last is self._lines[-1]):
                break
            await self._news.wait()
        if self._error:
            raise self._error

    async def _run(self) -> None:
        try:
            await self._work(self._tell)
        except LlamaRunnerError as error:
            self._error = error
        except Exception as error:  # a mistake of ours must not end the other flights
            self._error = ServerError(f"the pull failed: {type(error).__name__}")
            self._error.__cause__ = error

    def _land(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._error = ShuttingDown("The pull was cancelled.")
        self.over = True
        self._wake()

    def _tell(self, line: Line) -> None:
        if not self._lines or "digest" not in line or self._lines[-1].get("digest") != line["digest"]:
            self._lines.append(line)
            self._wake()
            return
        self._lines[-1] = line
        due = self._told_at + TELL_SECONDS
        if line.get("completed") == line["total"] or time.monotonic() >= due:
            self._wake()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(due - time.monotonic(), self._wake)

    def _wake(self) -> None:
        if self._later:
            self._later.cancel()
            self._later = None
        self._told_at = time.monotonic()
        self._news.set()
        self._news = asyncio.Event()


class Flights:
    """The flights under way, by what they bring. Owned by the group, which waits for them."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._flights: dict[str, Flight] = {}

    async def join(self, key: str, work: Work) -> AsyncGenerator[Line, None]:
        """Follow the flight of that key, which `work` begins if there is none."""
        while (flight := self._flights.get(key)) and not flight.joinable:
            await asyncio.wait([flight.task])  # one that was left by all must have put its files down
            self._forget(key, flight.task)
        if flight is None:
            flight = self._flights[key] = Flight(work, self._group)
            flight.task.add_done_callback(lambda task: self._forget(key, task))
        async with aclosing(flight.lines()) as lines:
            async for line in lines:
                yield line

    def _forget(self, key: str, task: asyncio.Task[None]) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]

    def cancel(self) -> None:
        for flight in self._flights.values():
            flight.task.cancel()
