"""One webhook's line: its deliveries one after the other, each until it succeeds or is given up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from llamarunner.config.webhooks import WebhookSettings
from llamarunner.errors import ServiceUnavailable
from llamarunner.outbound import Ask, Denied, Outbound, Unreachable
from llamarunner.webhooks import policy, signing
from llamarunner.webhooks.outbox import Attempt, Delivery, Endpoint, Message, Outbox
from llamarunner.webhooks.policy import Verdict

log = logging.getLogger("llamarunner.webhooks")

ANSWER_BYTES = 1000  # of an answer are read and kept
TROUBLE_SECONDS = 10.0  # until the outbox is tried again

T = TypeVar("T")


class Do(Protocol):
    """Does some work on the outbox, in its thread. Raises ServiceUnavailable if the outbox cannot be used."""

    def __call__(self, work: Callable[[Outbox], T]) -> Awaitable[T]: ...


class Line:
    """Delivers what waits for one webhook. `run` is its life; `idle` is set while nothing is being attempted."""

    def __init__(self, endpoint_id: str, do: Do, outbound: Outbound, settings: Callable[[], WebhookSettings]) -> None:
        self._id = endpoint_id
        self._do = do
        self._outbound = outbound
        self._settings = settings
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._pausing = False
        self.idle = asyncio.Event()

    def wake(self, *, now: bool = False) -> None:
        """Tell that something has come into the line; `now` ends the pause after a failure too."""
        self._news.set()
        if now:
            self._hurry.set()
        if now or not self._pausing:
            self.idle.clear()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._news.clear()
            self._hurry.clear()
            try:
                pause = await self._step()
            except ServiceUnavailable:  # the disk is full, say; what was delivered may be sent once more
                pause = TROUBLE_SECONDS
            except Exception:  # a mistake of ours here must not end the server
                log.exception("webhook %s: unexpected error", self._id)
                pause = TROUBLE_SECONDS
            if pause == 0:
                continue
            if pause is None:
                if not self._news.is_set():
                    self.idle.set()
                await self._news.wait()
            else:
                await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        self._pausing = True
        if not self._hurry.is_set():
            self.idle.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._pausing = False
        self.idle.clear()

    async def _step(self) -> float | None:
        """Attempt the next delivery; seconds to wait after it, or None if there is none."""
        settings = self._settings()
        delivery = await self._do(lambda box: box.head(self._id)) if settings.enabled else None
        if delivery is None:
            return None
        attempt, asked = await attempted(self._outbound, delivery.endpoint, delivery.message, settings)
        verdict = policy.judge(attempt.status, delivery.waited, settings)
        pause = 0.0
        if verdict is Verdict.RETRY:
            pause = policy.pause(delivery.failures + 1, asked, settings, random.random())
        reason = _reason(verdict, attempt, delivery)
        await self._do(lambda box: box.record(delivery, attempt, verdict, pause, reason))
        if reason:
            log.warning("webhook %s is disabled: %s", self._id, reason)
        return pause


async def attempted(
    outbound: Outbound, endpoint: Endpoint, message: Message, settings: WebhookSettings
) -> tuple[Attempt, float | None]:
    """Send a message once; says how it went, and in how many seconds the target wants the next attempt."""
    at, started = time.time(), time.monotonic()
    status, error, answer, asked = None, None, "", None
    ask = Ask(
        endpoint.url,
        settings.attempt_seconds,
        ANSWER_BYTES,
        method="POST",
        headers=signing.headers(endpoint.secret, message.id, int(at), message.body),
        body=message.body,
        loopback=endpoint.loopback,
    )
    try:
        found = await outbound.request(ask)
        status, answer = found.status, found.body.decode(errors="replace")
        asked = policy.retry_after(found.headers.get("Retry-After"), time.time())
    except (Denied, Unreachable) as failure:
        error = failure.message
    return Attempt(message.id, message.event, at, time.monotonic() - started, status, error, answer), asked


def _reason(verdict: Verdict, attempt: Attempt, delivery: Delivery) -> str | None:
    """Why the webhook is disabled, if it is."""
    if verdict is Verdict.GONE:
        return "Its target answered 410, which means that it wants no more."
    if verdict is Verdict.GIVEN_UP:
        last = f"The last answer had the status {attempt.status}." if attempt.status else attempt.error
        return f"{delivery.failures + 1} attempts over {delivery.waited / 3600:.1f} hours have failed. {last}"
    return None
