"""The webhooks of a server: takes events from the bus into the outbox, and has a line for every webhook.

Use it as `async with Webhooks(…) as webhooks`. Leaving takes what has been published until then into the outbox, and
gives the lines a moment to deliver it; the rest is delivered when the server runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import platformdirs

from llamarunner.config.webhooks import WebhookSettings
from llamarunner.errors import Forbidden, InvalidRequest, ServiceUnavailable, WebhookNotFound
from llamarunner.events import Bus, Event, Subscription, timestamp
from llamarunner.outbound import Denied, Outbound
from llamarunner.webhooks import policy, signing
from llamarunner.webhooks.delivery import Line, attempted
from llamarunner.webhooks.outbox import FILE_NAME, Attempt, Endpoint, Message, Outbox, Summary

log = logging.getLogger("llamarunner.webhooks")

CLOSE_SECONDS = 2.0  # for the last deliveries before the server ends

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Closing(Event):
    """The last in the mailbox: nothing follows."""

    name: ClassVar[str] = "closing"


@dataclass(frozen=True, slots=True)
class Registration:
    """What was registered; the secret only if it is a new one."""

    endpoint: Endpoint
    secret: str | None
    created: bool


class NoWebhooks(WebhookNotFound):
    """None was ever registered, so there is no file either."""


class Webhooks:
    """Registers, lists, and delivers. Every method for clients raises Forbidden while the settings disable webhooks,
    ServiceUnavailable if the outbox cannot be used, and those with an id WebhookNotFound.
    """

    def __init__(self, settings: WebhookSettings, outbound: Outbound, bus: Bus) -> None:
        self.settings = settings
        self._outbound = outbound
        self._bus = bus
        folder = settings.state_folder or platformdirs.user_state_path("llamarunner", appauthor=False)
        self._file = Path(folder) / FILE_NAME
        self._outbox: Outbox | None = None  # used in the thread alone
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhooks")
        self._lines: dict[str, tuple[Line, asyncio.Task[None]]] = {}
        self._stack = contextlib.ExitStack()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._mailbox = self._stack.enter_context(self._bus.subscribe((*policy.EVENTS, _Closing.name)))
        if self.settings.enabled:
            try:
                await self._do(lambda _: None)
            except NoWebhooks:
                pass
            except ServiceUnavailable as error:
                log.warning("nothing is delivered to webhooks: %s", error.message)
        self._intake = self._group.create_task(self._take_in(self._mailbox))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._mailbox.put(_Closing())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._intake
                for line, _task in list(self._lines.values()):
                    await line.idle.wait()
        self._stack.close()
        self._intake.cancel()
        for _line, task in self._lines.values():
            task.cancel()
        await self._group.__aexit__(None, None, None)
        with contextlib.suppress(TimeoutError):  # a disk that hangs does not hold up the exit
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def configure(self, settings: WebhookSettings) -> None:
        """Take over new settings; the file stays where it is."""
        self.settings = settings
        for line, _task in self._lines.values():
            line.wake()

    # ── for clients ────────────────────────────────────────────────────────────────────────────────────────────────

    async def register(
        self, url: str, events: Sequence[str], secret: str | None, client: str, loopback: bool
    ) -> Registration:
        """Tell a URL what happens; one that is known gets these events, this secret if one is given, and is enabled.

        `client` is who asks, and `loopback` whether the URL may lead to this machine.
        Raises InvalidRequest that names the field too, and Forbidden if there are too many.
        """
        self._check_enabled()
        policy.check_events(events)
        _check_secret(secret)
        try:
            plain = str(await self._outbound.check(url, loopback=loopback))
        except Denied as error:
            error.param = "url"
            raise
        chosen = secret or signing.new_secret()
        wanted = Endpoint(_new_id("wh"), plain, tuple(events), chosen, client, loopback, time.time())
        endpoint, created = await self._do(lambda box: box.register(wanted, keep_secret=secret is None), create=True)
        self._wake(endpoint.id)
        self._hasten(endpoint.id)
        return Registration(endpoint, chosen if created or secret else None, created)

    async def summaries(self) -> list[Summary]:
        """All webhooks, the oldest first."""
        self._check_enabled()
        try:
            return await self._do(lambda box: box.endpoints())
        except NoWebhooks:
            return []

    async def get(self, endpoint_id: str) -> tuple[Summary, list[Attempt]]:
        """One webhook and its last attempts, the newest first."""
        self._check_enabled()
        return await self._do(lambda box: (box.endpoint(endpoint_id), box.attempts(endpoint_id)))

    async def delete(self, endpoint_id: str) -> None:
        """Forget a webhook; an attempt under way is broken off."""
        self._check_enabled()
        await self._do(lambda box: box.delete(endpoint_id))
        if line := self._lines.pop(endpoint_id, None):
            line[1].cancel()

    async def enable(self, endpoint_id: str) -> Summary:
        """Deliver to a webhook again, beginning with what waits for it."""
        self._check_enabled()
        try:
            return await self._do(lambda box: box.enable(endpoint_id))
        finally:  # also when whoever asked has left
            self._hasten(endpoint_id)

    async def redeliver(self, endpoint_id: str, message: str | None) -> int:
        """Send one delivery, or all that failed, once more with the same ids; tells how many."""
        self._check_enabled()
        try:
            return await self._do(lambda box: box.redeliver(endpoint_id, message))
        finally:
            self._hasten(endpoint_id)

    async def test(self, endpoint_id: str) -> Attempt:
        """Send a webhook an event of its own, now and once, past all that waits; tells how it went."""
        self._check_enabled()
        endpoint = (await self._do(lambda box: box.endpoint(endpoint_id))).endpoint
        document: dict[str, object] = {
            "event": policy.TEST_EVENT,
            "timestamp": timestamp(time.time()),
            "data": {"webhook_id": endpoint.id},
        }
        attempt, _ = await attempted(self._outbound, endpoint, _message(policy.TEST_EVENT, document), self.settings)
        await self._do(lambda box: box.note(endpoint.id, attempt))
        return attempt

    def _check_enabled(self) -> None:
        if not self.settings.enabled:
            raise Forbidden("Webhooks are switched off in the settings (webhooks.enabled).")

    # ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take_in(self, mailbox: Subscription) -> None:
        """Write every event of interest into the outbox."""
        lost = 0
        async for event in mailbox:
            if isinstance(event, _Closing):
                return
            if mailbox.lost > lost:
                log.warning("webhooks are not told of %d events: the disk was too slow", mailbox.lost - lost)
                lost = mailbox.lost
            if not self.settings.enabled:
                continue
            message = _message(event.name, event.payload())
            try:
                for endpoint_id in await self._do(lambda box, message=message: box.add(message)):  # type: ignore[misc]
                    self._wake(endpoint_id)
            except NoWebhooks:
                pass
            except ServiceUnavailable as error:
                log.warning("webhooks are not told of %s: %s", event.name, error.message)
            except Exception:  # a mistake of ours here must not end the server
                log.exception("webhooks are not told of %s", event.name)

    def _wake(self, endpoint_id: str) -> None:
        """Set the line of a webhook going, and make it first if need be."""
        if endpoint_id not in self._lines:
            line = Line(endpoint_id, self._do, self._outbound, lambda: self.settings)
            self._lines[endpoint_id] = line, self._group.create_task(line.run())
        self._lines[endpoint_id][0].wake()

    def _hasten(self, endpoint_id: str) -> None:
        """End the pause of a line after a failure."""
        if endpoint_id in self._lines:
            self._lines[endpoint_id][0].wake(now=True)

    # ── the outbox's thread ────────────────────────────────────────────────────────────────────────────────────────

    async def _do(self, work: Callable[[Outbox], T], create: bool = False) -> T:
        """Do some work on the outbox, which is opened first if need be. Raises NoWebhooks if there is no file."""

        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, lambda: work(self._outbox or self._open(loop, create)))
        except (sqlite3.Error, OSError) as error:
            log.warning("the webhooks' file %s: %s", self._file, error)
            raise ServiceUnavailable(_advice(error), retry_after=10) from error

    def _open(self, loop: asyncio.AbstractEventLoop, create: bool) -> Outbox:
        """Open the outbox, and set all lines going."""
        if not create and not self._file.exists():
            raise NoWebhooks("There are no webhooks.")
        self._outbox = Outbox(self._file)
        for known in self._outbox.endpoints():
            loop.call_soon_threadsafe(self._wake, known.endpoint.id)
        return self._outbox

    def _close(self) -> None:
        if self._outbox:
            self._outbox.close()


def _message(event: str, document: dict[str, object]) -> Message:
    """Give a document an id, and its bytes for good."""
    message_id = _new_id("msg")
    body = json.dumps({"id": message_id, **document}, separators=(",", ":"), ensure_ascii=False)
    return Message(message_id, event, body.encode(errors="replace"))


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def _check_secret(secret: str | None) -> None:
    if secret is None:
        return
    try:
        signing.key_of(secret)
    except ValueError as error:
        raise InvalidRequest(f"'secret' is wrong: {error}.", param="secret") from None


def _advice(error: Exception) -> str:
    """Say what is wrong with the outbox, and what the owner can do; no path."""
    text = str(error)
    if "locked" in text:
        return (
            "Another LlamaRunner holds the webhooks of this state folder; give one of the two another folder "
            "(webhooks.state_folder)."
        )
    if "full" in text:
        return "The disk, or the outbox of webhooks, is full."
    if "not a database" in text or "malformed" in text:
        return f"The file of the webhooks is damaged; move {FILE_NAME} out of the state folder, its path is in the log."
    return "The state folder cannot be written; set webhooks.state_folder to one that can."
