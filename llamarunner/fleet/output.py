"""What a model's processes print: the last lines, kept across their lives, and those who follow them.

`Pipes` make lines of what a process prints, and an `Output` keeps them. A follower has a place in it, not a mailbox:
however many follow, and however slow they are, a line is kept once, and one who falls behind is told how many lines
went by.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

MOST_BYTES = 256 * 1024
MOST_LINES = 10_000
LINE_BYTES = 8 * 1024


class News(NamedTuple):
    """What a follower has not seen yet: lines, after so many others that are lost."""

    lines: list[str]
    lost: int


class Output:
    """The last lines of one model, at most `MOST_LINES` and `MOST_BYTES` of them."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._printed = 0  # lines, ever
        self._followers: set[asyncio.Event] = set()

    def add(self, lines: list[bytes]) -> None:
        """Keep lines of at most `LINE_BYTES`, without their ends."""
        self._printed += len(lines)
        self._lines.extend(lines)
        self._size += sum(map(len, lines))
        while self._size > MOST_BYTES or len(self._lines) > MOST_LINES:
            self._size -= len(self._lines.popleft())
        for follower in self._followers:
            follower.set()

    def tail(self, lines: int) -> list[str]:
        """The last lines, without control characters."""
        return self._since(self._printed - lines, lines).lines

    @contextmanager
    def follow(self, tail: int) -> Iterator[Follower]:
        """Follow the lines, from so many before now on."""
        follower = Follower(self, max(self._printed - tail, self._printed - len(self._lines)))
        self._followers.add(follower.signal)
        try:
            yield follower
        finally:
            self._followers.discard(follower.signal)

    def _since(self, place: int, most: int) -> News:
        first = self._printed - len(self._lines)
        start = max(0, place - first)
        return News([cleaned(line) for line in islice(self._lines, start, start + most)], max(0, first - place))


class Follower:
    """A place in an output; made by `Output.follow`."""

    def __init__(self, output: Output, place: int) -> None:
        self.signal = asyncio.Event()
        self._output = output
        self._place = place

    async def news(self, most: int = 500) -> News:
        """Wait for lines, and give at most so many of them."""
        while self._place == self._output._printed:
            self.signal.clear()
            await self.signal.wait()
        news = self._output._since(self._place, most)
        self._place += len(news.lines) + news.lost
        return news


class Pipes:
    """Makes lines of what arrives through several pipes. What is longer than `LINE_BYTES` becomes several."""

    def __init__(self) -> None:
        self._partial: dict[int, bytes] = {}  # by pipe: the last line, as far as it has come

    def feed(self, pipe: int, data: bytes) -> list[bytes]:
        """Take what arrived through a pipe, and return the lines that are whole."""
        *lines, rest = (self._partial.get(pipe, b"") + data).split(b"\n")
        if len(rest) > LINE_BYTES:
            *pieces, rest = _pieces(rest)
            lines += pieces
        self._partial[pipe] = rest
        if any(len(line) > LINE_BYTES for line in lines):
            lines = [piece for line in lines for piece in _pieces(line)]
        return lines

    def end(self, pipe: int) -> list[bytes]:
        """Nothing more will come through a pipe: what has no end yet is a line too."""
        rest = self._partial.pop(pipe, b"")
        return [rest] if rest else []

    def unfinished(self) -> list[bytes]:
        """The lines that have no end yet."""
        return [rest for rest in self._partial.values() if rest]


def _pieces(line: bytes) -> list[bytes]:
    return [line[start : start + LINE_BYTES] for start in range(0, len(line), LINE_BYTES)] or [b""]


def cleaned(line: bytes) -> str:
    """Write a line so that it can do no harm to a terminal."""
    text = line.rstrip(b"\r").decode(errors="replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
