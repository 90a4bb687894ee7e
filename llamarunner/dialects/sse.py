"""Server-sent events, from bytes in any cut (WHATWG HTML, section 9.2): pure and incremental.

    splitter = Splitter()
    for event in splitter.feed(chunk):
        ... event.data ...

An event is complete with its blank line; what the stream ends in the middle of is not one, as the standard has it.
`id` and `retry` are for clients that reconnect, which nobody here does; they are read over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamarunner.errors import BackendFailed

MAX_EVENT = 16 * 2**20  # bytes
BOM = b"\xef\xbb\xbf"
DONE = "[DONE]"  # the data of the last event of a stream in OpenAI's language
_OPENING, _CLOSING = b"data: ", b"\n\n"
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event; `name` is what its `event` field says, `data` its data lines joined by line feeds."""

    data: str
    name: str = "message"


class Splitter:
    """The state between two chunks of one stream."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of the line that has not ended yet
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0  # bytes of the event that has not ended yet
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take what arrived, and return the events that are complete. Raises BackendFailed for one without end."""
        if not chunk:
            return []
        if plain := self._plain(chunk):
            return plain
        split = self._after_cr and chunk[0] == 0x0A  # a line end whose two halves came apart
        self._after_cr = chunk[-1] == 0x0D
        events: list[ServerSentEvent] = []
        first, *rest = _LINE_END.split(chunk[1:] if split else chunk)
        self._add(first)
        for piece in rest:
            self._end_line(events)
            self._add(piece)
        return events

    def _plain(self, chunk: bytes) -> list[ServerSentEvent]:
        """Whole events of one data line each, as llama.cpp sends them; empty for anything else, to be read by line."""
        if self._size or self._after_cr or not (chunk.startswith(_OPENING) and chunk.endswith(_CLOSING)):
            return []
        found = chunk[len(_OPENING) : -len(_CLOSING)].split(_CLOSING + _OPENING)
        if len(chunk) > MAX_EVENT or b"\r" in chunk or chunk.count(b"\n") != 2 * len(found):
            return []
        self._first = False
        return [ServerSentEvent(_text(data)) for data in found]

    def _add(self, piece: bytes) -> None:
        self._line.append(piece)
        self._size += len(piece)
        if self._size > MAX_EVENT:
            raise BackendFailed("The model's process sent an event that is too long.")

    def _end_line(self, events: list[ServerSentEvent]) -> None:
        line = b"".join(self._line)
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if not line:
            if self._data:
                events.append(ServerSentEvent(_text(b"\n".join(self._data)), _text(self._name) or "message"))
            self._data, self._name, self._size = [], b"", 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.removeprefix(b" ")


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
