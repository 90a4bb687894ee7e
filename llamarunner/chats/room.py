"""Kept chats, for the server: the archive on a thread of its own, opened when it is first needed.

Use it as `async with Chats(settings) as chats`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import platformdirs

from llamarunner.chats.archive import BUSY_SECONDS, FILE_NAME, Archive, Entry, Newer, NotKept
from llamarunner.config.chats import ChatSettings
from llamarunner.errors import ServiceUnavailable

log = logging.getLogger("llamarunner.chats")

MB = 1_000_000
DAY_SECONDS = 86_400
LEAST_BUSY_SECONDS = 0.05  # to wait for another server that uses the file
CLOSE_SECONDS = 2.0  # for a disk that hangs
COMPANIONS = ("", "-wal", "-shm")  # of the file
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

T = TypeVar("T")


def new_id() -> str:
    """An id that nobody guesses, of the form that LM Studio's have."""
    return f"resp_{secrets.token_hex(24)}"


class Chats:
    """Every method raises ServiceUnavailable where the file cannot be used; one that is damaged is moved aside.

    `owner` is who may see a response, `kind` which API it is of.
    """

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        folder = settings.folder or platformdirs.user_data_path("llamarunner", appauthor=False)
        self._file = Path(folder) / FILE_NAME
        self._archive: Archive | None = None  # used in the thread alone
        self._complaint = ""  # what is wrong with it, as the log has it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chats")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def configure(self, settings: ChatSettings) -> None:
        """Take over new settings; the file stays where it is."""
        self.settings = settings

    async def keep(self, entry: Entry) -> bool:
        """Keep a response; False if it could not be kept, for which the log has the reason."""
        most = self.settings.max_mb * MB

        def add(archive: Archive) -> bool:
            self._forget(archive)
            return archive.add(entry, time.time(), most)

        try:
            kept = await self._do(add)
        except ServiceUnavailable:
            return False
        except NotKept:
            log.info("%s is not kept: the response that it goes on from was deleted meanwhile", entry.id)
            return False
        if not kept:
            log.warning("%s is not kept: its chat alone is larger than chats.max_mb", entry.id)
        return kept

    async def turns(self, response_id: str, owner: str, kind: str) -> list[dict[str, Any]]:
        """What was said up to a response, from the beginning. Raises NotKept."""

        def turns(archive: Archive) -> list[dict[str, Any]]:
            self._forget(archive)
            return archive.turns(response_id, owner, kind, time.time())

        return await self._look(turns)

    async def entry(self, response_id: str, owner: str, kind: str) -> Entry:
        """One response. Raises NotKept."""

        def entry(archive: Archive) -> Entry:
            self._forget(archive)
            return archive.entry(response_id, owner, kind)

        return await self._look(entry)

    async def delete(self, response_id: str, owner: str) -> None:
        """Forget a response of whichever API. Raises NotKept."""
        await self._look(lambda archive: archive.delete(response_id, owner))

    # ── the archive's thread ───────────────────────────────────────────────────────────────────────────────────────

    async def _look(self, work: Callable[[Archive], T]) -> T:
        """Do some work on the archive, unless there is none."""
        if not self.settings.enabled:
            raise NotKept
        return await self._do(work, create=False)

    async def _do(self, work: Callable[[Archive], T], create: bool = True) -> T:
        asked_at = time.monotonic()

        def done() -> T:
            patience = max(
                LEAST_BUSY_SECONDS, asked_at + BUSY_SECONDS - time.monotonic()
            )  # the wait for the thread counts
            try:
                return work(self._opened(create, patience))
            except sqlite3.DatabaseError as error:
                if (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGED:
                    raise
                self._move_aside(error)
                return work(self._opened(create, patience))

        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, done)
        except (sqlite3.Error, OSError, Newer) as error:
            self._complain(error)
            raise ServiceUnavailable("Stored chats cannot be used now; the log has the reason.") from error
        self._complaint = ""
        return result

    def _opened(self, create: bool, patience: float) -> Archive:
        """The archive, which waits so many seconds for another server. Raises NotKept if there is none to be."""
        if self._archive and not self._archive.is_at(self._file):
            self._close()
        if self._archive:
            self._archive.wait_at_most(patience)
            return self._archive
        if not create and not self._file.exists():
            raise NotKept
        self._archive = Archive(self._file, patience)
        return self._archive

    def _forget(self, archive: Archive) -> None:
        if gone := archive.forget(time.time() - self.settings.max_age_days * DAY_SECONDS):
            log.info("%d chats are deleted that were not used for %g days", gone, self.settings.max_age_days)

    def _move_aside(self, error: Exception) -> None:
        """Put a damaged file where its owner finds it, and begin a new one."""
        self._close()
        aside = self._file.with_name(f"{FILE_NAME}.damaged-{time.time_ns()}")
        for companion in COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                self._file.with_name(FILE_NAME + companion).rename(aside.with_name(aside.name + companion))
        log.error("the file of stored chats is damaged (%s): it is now %s, and a new one is begun", error, aside)

    def _complain(self, error: Exception) -> None:
        """Log that the file cannot be used, once until it can."""
        complaint, self._complaint = self._complaint, f"{type(error).__name__}: {error}"
        if complaint != self._complaint:
            reason = "a later version wrote it" if isinstance(error, Newer) else error
            log.warning("chats are not kept, since their file %s cannot be used: %s", self._file, reason)

    def _close(self) -> None:
        archive, self._archive = self._archive, None
        if archive:
            archive.close()
