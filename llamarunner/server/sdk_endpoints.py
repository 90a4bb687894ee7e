"""What the endpoints of LM Studio's sockets have in common: who asks, what they answer through, and how they are found.

A call has one result. A channel is a task: it sends packets until it returns, and hears when its client wants it to
stop.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llamarunner.dialects.lmstudio.sdk_infos import Domain
from llamarunner.errors import LlamaRunnerError, RateLimited
from llamarunner.limits import Account, Ticket
from llamarunner.server.record import Record
from llamarunner.server.sdk_guests import Guest
from llamarunner.server.services import View

DIALECT = "lmstudio"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and where."""

    view: View
    client: str  # its address
    account: Account
    guest: Guest
    namespace: str  # the path of the socket, without its slash
    headers: Mapping[str, str]  # with the credential
    texts: asyncio.Semaphore  # taken for a text of a list, of which each comes as a call

    @property
    def domain(self) -> Domain:
        """Which kind of models a namespace is about."""
        return "embedding" if self.namespace == "embedding" else "llm"

    def picture(self, identifier: str, place: str) -> str:
        """The data URL of a file that this client has uploaded. Raises InvalidRequest that names the place."""
        return self.view.guests.find(self.guest, identifier, place).url

    @contextmanager
    def counted(
        self, endpoint: str, *, stream: bool = False, of_minute: bool = True
    ) -> Iterator[tuple[Record, Ticket]]:
        """Count a request to a model in the client's budget, and tell when it is over. Raises RateLimited."""
        view = self.view
        record = Record(
            *(secrets.token_hex(8), view.name, self.client, "SDK", f"/{self.namespace}/{endpoint}", DIALECT),
            stream=stream,
        )
        with view.services.records.open(record):
            try:
                ticket = view.limiter.admit(self.account, time.monotonic_ns(), of_minute)
                with ticket:
                    record.admitted = True
                    if stream:
                        ticket.begin_stream()
                    yield record, ticket
            except RateLimited as error:
                view.services.metrics.refused(view.name, error.limit)
                error.message += view.way_out(self.client, self.account)
                raise


class Cancelled(LlamaRunnerError):
    """The client wants no more of it."""


@dataclass(slots=True)
class Channel:
    """The server's end of a channel. `send` waits until the client has taken the packet; it raises ConnectionError."""

    send: Callable[[Mapping[str, object]], Awaitable[None]]
    stopped: bool = False
    lasting: bool = False  # it has no end of its own
    _callbacks: list[Callable[[], None]] = field(default_factory=list)

    def stop(self) -> None:
        """The client wants no more of it."""
        if not self.stopped:
            self.stopped = True
            for callback in self._callbacks:
                callback()

    def when_stopped(self, callback: Callable[[], None]) -> None:
        """Call a function as soon as the client wants no more; at once if it does already."""
        if self.stopped:
            callback()
        else:
            self._callbacks.append(callback)


Rpc = Callable[[Caller, Any], Awaitable[object]]
Streaming = Callable[[Caller, Any, Channel], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Namespace:
    """What one kind of socket serves, by the names of the endpoints."""

    rpcs: Mapping[str, Rpc] = field(default_factory=dict)
    channels: Mapping[str, Streaming] = field(default_factory=dict)
