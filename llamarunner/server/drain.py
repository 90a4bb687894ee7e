"""The exchanges under way, and their end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from llamarunner.errors import ShuttingDown
from llamarunner.server.watch import Watch

STOPPING = "The server is shutting down."


class Drain:
    """First `begin`, then `await idle(…)`, then `expire` for those that remain.

    From `begin` on no new exchange is let in (the guards ask `active`); those under way may end in peace.
    `expire` ends them at once, each with the last event of its language.
    """

    def __init__(self) -> None:
        self.active = False
        self._watches: set[Watch] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._watches)

    def begin(self) -> None:
        self.active = True

    def expire(self) -> None:
        """End every exchange now. Call `begin` first, and `idle` after, to let the last events out."""
        for watch in tuple(self._watches):
            watch.end(ShuttingDown(STOPPING))

    async def idle(self, seconds: float) -> bool:
        """Wait until no exchange is under way; False if some still are after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    @contextmanager
    def counting(self, watch: Watch) -> Iterator[None]:
        """Count an exchange as under way."""
        self._watches.add(watch)
        self._idle.clear()
        try:
            yield
        finally:
            self._watches.discard(watch)
            if not self._watches:
                self._idle.set()
