"""How many connections are open, how many may be, and what becomes of those for which there is no room.

Every connection takes a file descriptor. Without a cap a client that only connects could use up all of them, and then
nothing works: no request to a model, no start of one. So the cap stays below what the system allows, which is raised as
far as it goes at the start. One address may have but few, or one client could take all the room; this machine and
reverse proxies are no single client, and have no such cap.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import sys
import time
from collections import Counter
from typing import Any

from llamarunner.config import ConnectionSettings
from llamarunner.errors import LlamaRunnerError, RateLimited, ServiceUnavailable

SHARE = 0.8  # of the file descriptors, for clients; the rest is for models and files,
RESERVE = 32  # and these in any case
DESCRIPTORS = 65_536  # wanted; programs that use select() would be upset by no limit at all
QUIET_SECONDS = 60.0
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger("llamarunner.server")


class Crowd:
    """The open connections of all doors, as numbers.

    `descriptors` is how many files the system lets us open, if it has a limit.
    """

    def __init__(self, rules: ConnectionSettings, descriptors: int | None) -> None:
        self.rules = rules
        self._descriptors = descriptors
        self._by_client: Counter[str] = Counter()
        self.size = 0

    @property
    def room(self) -> int:
        """The most connections that may be open."""
        share = None if self._descriptors is None else max(1, int(self._descriptors * SHARE) - RESERVE)
        return self.rules.max_open if share is None else min(self.rules.max_open, share)

    def enter(self, client: str | None) -> LlamaRunnerError | None:
        """Count a connection, or tell why it may not be; `client` is whom it is counted for, None for nobody."""
        most = self.rules.max_per_address
        if client is not None and most is not None and self._by_client[client] >= most:
            return RateLimited("There are too many connections from this address. Close some.", retry_after=1)
        if self.size >= self.room:
            return ServiceUnavailable("There are too many connections. Try again later.", retry_after=5)
        self.size += 1
        if client is not None:
            self._by_client[client] += 1
        return None

    def leave(self, client: str | None) -> None:
        """A connection that was let in is closed."""
        self.size -= 1
        if client is not None:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


def descriptor_limit() -> int | None:
    """How many files this process may open; None where that has no limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """Let this process open as many files as the system allows without asking."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def quiet_exhaustion(loop: asyncio.AbstractEventLoop) -> None:
    """Log once a minute, not thousands of times, that no connection can be accepted for lack of descriptors."""
    silent_until = 0.0

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal silent_until
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in EXHAUSTED and "accept" in context.get("message", "")):
            loop.default_exception_handler(context)
        elif (now := time.monotonic()) >= silent_until:
            silent_until = now + QUIET_SECONDS
            log.error("no connection can be accepted at present: %s", error.strerror)

    loop.set_exception_handler(handle)
