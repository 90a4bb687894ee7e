"""The exchanges under way, the guests that would stay for ever, and their end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llamarunner.errors import ShuttingDown
from llamarunner.server.watch import Watch

STOPPING = "The server is shutting down."


class Drain:
    """First `begin`, then `await idle(…)`, then `expire` for those that remain.

    From `begin` on no new exchange is let in (the guards ask `active`); those under way may end in peace, and guests
    are asked to leave. `expire` ends exchanges at once, each with the last event of its language.
    """

    def __init__(self) -> None:
        self.active = False
        self._watches: set[Watch] = set()
        self._guests: set[Callable[[], None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._watches)

    def begin(self) -> None:
        self.active = True
        for dismiss in tuple(self._guests):
            dismiss()

    def expire(self) -> None:
        """End every exchange now. Call `begin` first, and `idle` after, to let the last events out."""
        for watch in tuple(self._watches):
            watch.end(ShuttingDown(STOPPING))

    async def idle(self, seconds: float) -> bool:
        """Wait until no exchange is under way and no guest here; False if that takes more than so many seconds."""
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
            self._settle()

    @contextmanager
    def hosting(self, dismiss: Callable[[], None]) -> Iterator[None]:
        """Count a guest, who stays until it likes to go; `dismiss` is called when the server stops, or does already."""
        self._guests.add(dismiss)
        self._idle.clear()
        if self.active:
            dismiss()
        try:
            yield
        finally:
            self._guests.discard(dismiss)
            self._settle()

    def _settle(self) -> None:
        if not self._watches and not self._guests:
            self._idle.set()
