"""Who may decode now: the slots of a model, lent for one slice of a recording at a time.

Clients take turns, and the recordings of one client are served in the order they came. So a clip of five seconds waits
for a slice of a recording of four hours, never for the whole, and twenty uploads of one client do not shut out another.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Use it as `async with turns.turn(client)`, around the work on one slice."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next client first

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Hold a slot until the end of the block."""
        await self._take(client)
        try:
            yield
        finally:
            self._give()

    async def _take(self, client: str) -> None:
        if self._free:  # then nobody waits
            self._free -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # it came in the same moment
                self._give()
            raise

    def _give(self) -> None:
        """Hand a slot to the next who still waits for it."""
        while self._waiting:
            client, queue = self._waiting.popitem(last=False)
            granted = queue.popleft()
            if queue:
                self._waiting[client] = queue  # behind all others
            if not granted.done():
                granted.set_result(None)
                return
        self._free += 1
