"""The frames of a websocket as they come: over how many of them a message is spread, and since when it is coming.

aiohttp bounds the size of a message alone; one of empty frames has none, and need never end (RFC 6455, section 5.4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

MOST_FRAMES = 1024  # of a message, and in what arrives at once
SECONDS = 60.0  # for a message to arrive in

FINAL, CONTROL = 0x80, 0x08  # of a frame's first byte (RFC 6455, section 5.2)
MASKED, LENGTH = 0x80, 0x7F  # of its second
LONGER = {126: 2, 127: 8}  # bytes in which a longer length follows


class Frames:
    """Follows the frames of one client, not what is in them. `now` is of any steady clock, in seconds."""

    def __init__(self) -> None:
        self._head = b""  # of the next frame, as far as it has come
        self._left = 0  # bytes of this frame's payload still to come
        self._final = False  # this frame is the last one of its message
        self._count = 0  # frames of the message
        self._since: float | None = None  # when the message began

    def feed(self, data: bytes, now: float) -> str | None:
        """Take what arrived; tells what is wrong, if anything is."""
        at = seen = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = _head_size(self._head) - len(self._head)
                self._head += data[at : at + step]
                if len(self._head) == _head_size(self._head):
                    seen += 1
                    self._begin(now)
            at += step
            if self._final and not self._left:
                self._final, self._count, self._since = False, 0, None
            if max(seen, self._count) > MOST_FRAMES:
                return "Too many frames."
        if self._since is not None and now > self._since + SECONDS:
            return "The message did not arrive in time."
        return None

    def _begin(self, now: float) -> None:
        first, second = self._head[:2]
        size = second & LENGTH
        self._left = int.from_bytes(self._head[2 : 2 + LONGER[size]]) if size in LONGER else size
        self._head = b""
        if not first & CONTROL:  # those may come between the frames of a message
            self._final = bool(first & FINAL)
            self._count += 1
            self._since = now if self._since is None else self._since


class Guarded:
    """A parser of aiohttp's that is fed as long as the frames are sound; `refuse` is told what is wrong, once.

    `allowance` are the bytes that may still come, if that is bounded.
    """

    def __init__(self, parser: Any, refuse: Callable[[str], None]) -> None:
        self.allowance: int | None = None
        self._parser = parser
        self._refuse = refuse
        self._frames = Frames()
        self._sound = True
        self._time = asyncio.get_running_loop().time

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        fault = self._frames.feed(data, self._time()) if self._sound else None
        if self.allowance is not None:
            self.allowance -= len(data)
            fault = fault or ("Too much, too early." if self.allowance < 0 else None)
        if self._sound and fault:
            self._sound = False
            self._refuse(fault)
        return self._parser.feed_data(data) if self._sound else (False, b"")

    def feed_eof(self) -> None:
        self._parser.feed_eof()


def _head_size(head: bytes) -> int:
    """How long the head of a frame is, as far as what has come of it tells."""
    if len(head) < 2:
        return 2
    return 2 + LONGER.get(head[1] & LENGTH, 0) + 4 * bool(head[1] & MASKED)
