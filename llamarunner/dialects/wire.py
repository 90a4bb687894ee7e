"""What the server must be able to say in each client's language without knowing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llamarunner.errors import LlamaRunnerError

COMMENT = b": keep-alive\n\n"
"""A line that every reader of server-sent events skips."""


def own_status(error: LlamaRunnerError) -> int:
    return error.status


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API speaks of errors and of patience.

    Both functions take the error and the id of the request. `pulse` fills silence inside a stream that has begun;
    before that, only a comment is sure to be understood. `media` is the type of an answer that is an error.
    """

    name: str
    error_body: Callable[[LlamaRunnerError, str], bytes]
    error_event: Callable[[LlamaRunnerError, str], bytes]
    pulse: bytes = COMMENT
    status_of: Callable[[LlamaRunnerError], int] = own_status
    media: str = "application/json"


def sse(data: bytes, event: str | None = None) -> bytes:
    """Frame one line of data as a server-sent event."""
    name = f"event: {event}\n".encode() if event else b""
    return b"%bdata: %b\n\n" % (name, data)
