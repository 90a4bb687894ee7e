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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import platformdirs

from llamarunner.config.webhooks import WebhookSettings
from llamarunner.errors import Forbidden, InvalidRequest, ServiceUnavailable, WebhookNotFound
from llamarunner.events import Bus, Event, Subscription, timestamp
from llamarunner.outbound import Denied, Outbound
from llamarunner.webhooks import policy, signing
from llamarunner.webhooks.delivery import Line, attempted
from llamarunner.webhooks.outbox import (
    FILE_NAME,
    HOUSE,
    Asker,
    Attempt,
    Damaged,
    Endpoint,
    Message,
    Newer,
    Outbox,
    Summary,
)

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
        self._complaint = ""  # what is wrong with it, as the log has it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhooks")
        self._lines: dict[str, tuple[Line, asyncio.Task[None]]] = {}
        self._ended = False
        self._stack = contextlib.ExitStack()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._mailbox = self._stack.enter_context(self._bus.subscribe((*policy.EVENTS, _Closing.name)))
        if self.settings.enabled:
            with contextlib.suppress(NoWebhooks, ServiceUnavailable):  # the rest of the server does its work
                await self._do(lambda _: None)
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
        self._ended = True
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

    async def register(self, url: str, events: Sequence[str], secret: str | None, asker: Asker) -> Registration:
        """Tell a URL what happens; one that is known gets these events, this secret if one is given, and is enabled.

        It will be told of those models alone that the asker may see now.
        Raises InvalidRequest that names the field too, and Forbidden if there are too many.
        """
        self._check_enabled()
        policy.check_events(events)
        _check_secret(secret)
        try:
            plain = str(await self._outbound.check(url, loopback=asker.loopback))
        except Denied as error:
            error.param = "url"
            raise
        chosen = secret or signing.new_secret()
        wanted = Endpoint(
            *(_new_id("wh"), plain, tuple(events), chosen, asker.client, asker.loopback, time.time()),
            owner=asker.name,
            scope=asker.scope,
        )

        def change(box: Outbox) -> tuple[Endpoint, bool]:
            return box.register(wanted, keep_secret=secret is None)

        endpoint, created = await self._change(change, lambda made: self._wake(made[0].id, now=True), create=True)
        return Registration(endpoint, chosen if created or secret else None, created)

    async def summaries(self, asker: Asker = HOUSE) -> list[Summary]:
        """All webhooks that the asker sees, the oldest first."""
        self._check_enabled()
        try:
            return await self._do(lambda box: box.endpoints(asker))
        except NoWebhooks:
            return []

    async def get(self, endpoint_id: str, asker: Asker = HOUSE) -> tuple[Summary, list[Attempt]]:
        """One webhook and its last attempts, the newest first."""
        self._check_enabled()
        return await self._do(lambda box: (box.endpoint(endpoint_id, asker), box.attempts(endpoint_id)))

    async def delete(self, endpoint_id: str, asker: Asker = HOUSE) -> None:
        """Forget a webhook; an attempt under way is broken off."""
        self._check_enabled()
        await self._change(lambda box: box.delete(endpoint_id, asker), lambda _: self._end(endpoint_id))

    async def enable(self, endpoint_id: str, asker: Asker = HOUSE) -> Summary:
        """Deliver to a webhook again, beginning with what waits for it."""
        self._check_enabled()
        return await self._change(
            lambda box: box.enable(endpoint_id, asker), lambda _: self._wake(endpoint_id, now=True)
        )

    async def redeliver(self, endpoint_id: str, message: str | None, asker: Asker = HOUSE) -> int:
        """Send one delivery, or all that failed, once more with the same ids; tells how many."""
        self._check_enabled()
        return await self._change(
            lambda box: box.redeliver(endpoint_id, message, asker), lambda _: self._wake(endpoint_id, now=True)
        )

    async def test(self, endpoint_id: str, asker: Asker = HOUSE) -> Attempt:
        """Send a webhook an event of its own, now and once, past all that waits; tells how it went."""
        self._check_enabled()
        endpoint = (await self._do(lambda box: box.endpoint(endpoint_id, asker))).endpoint
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
                await self._change(
                    partial(Outbox.add, message=message, model_id=getattr(event, "model_id", None)), self._wake_all
                )
            except (NoWebhooks, ServiceUnavailable):
                pass  # the log has it
            except Exception:  # a mistake of ours here must not end the server
                log.exception("webhooks are not told of %s", event.name)

    def _wake(self, endpoint_id: str, *, now: bool = False) -> None:
        """Set the line of a webhook going, and make it first if need be; `now` ends its pause after a failure."""
        if self._ended:
            return
        if endpoint_id not in self._lines:
            line = Line(endpoint_id, self._do, self._outbound, lambda: self.settings)
            self._lines[endpoint_id] = line, self._group.create_task(line.run())
        self._lines[endpoint_id][0].wake(now=now)

    def _wake_all(self, endpoint_ids: Iterable[str]) -> None:
        for endpoint_id in endpoint_ids:
            self._wake(endpoint_id)

    def _end(self, endpoint_id: str) -> None:
        """End the line of a webhook that is gone, and the attempt under way."""
        if line := self._lines.pop(endpoint_id, None):
            line[1].cancel()

    # ── the outbox's thread ────────────────────────────────────────────────────────────────────────────────────────

    async def _change(self, work: Callable[[Outbox], T], then: Callable[[T], None], create: bool = False) -> T:
        """Do some work on the outbox, and tell the lines of it, also if whoever asked has left meanwhile.

        The thread itself calls for `then`, so that the lines hear of all changes in their order.
        """
        loop = asyncio.get_running_loop()

        def change(box: Outbox) -> T:
            result = work(box)
            loop.call_soon_threadsafe(then, result)
            return result

        return await self._do(change, create)

    async def _do(self, work: Callable[[Outbox], T], create: bool = False) -> T:
        """Do some work on the outbox, which is opened first if need be. Raises NoWebhooks if there is no file."""

        loop = asyncio.get_running_loop()
        try:
            done = await loop.run_in_executor(self._thread, lambda: work(self._outbox or self._open(loop, create)))
        except (sqlite3.Error, OSError, Damaged, Newer) as error:
            self._complain(error)
            raise ServiceUnavailable(_advice(error), retry_after=10) from error
        self._complaint = ""
        return done

    def _complain(self, error: Exception) -> None:
        """Log that the file cannot be used, once until it can."""
        complaint, self._complaint = self._complaint, f"{type(error).__name__}: {error}"
        if complaint != self._complaint:
            log.warning("webhooks are not told what happens, since their file %s cannot be used: %s", self._file, error)

    def _open(self, loop: asyncio.AbstractEventLoop, create: bool) -> Outbox:
        """Open the outbox, and set all lines going."""
        if not create and not self._file.exists():
            raise NoWebhooks("There are no webhooks.")
        outbox = Outbox(self._file)
        try:
            known = outbox.endpoints()
        except BaseException:
            outbox.close()
            raise
        self._outbox = outbox
        for one in known:
            loop.call_soon_threadsafe(self._wake, one.endpoint.id)
        return outbox

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
    if isinstance(error, Newer):
        return (
            "The file of the webhooks was written by a later version of LlamaRunner; use that one, or set another "
            "folder (webhooks.state_folder)."
        )
    if "locked" in text:
        return (
            "Another LlamaRunner holds the webhooks of this state folder; give one of the two another folder "
            "(webhooks.state_folder)."
        )
    if "full" in text:
        return "The disk, or the outbox of webhooks, is full."
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if not isinstance(error, OSError) and code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"The file of the webhooks is damaged; move {FILE_NAME} out of the state folder, its path is in the log."
    return "The state folder cannot be written; set webhooks.state_folder to one that can."
