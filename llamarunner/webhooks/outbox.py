"""The SQLite file of webhooks. Everything here blocks, and belongs to one thread; every method is one transaction.

A message is an event with its body, which is written once; a delivery is a message on its way to one webhook. The file
is locked for as long as it is open, which the system undoes when the process dies.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from llamarunner.errors import Forbidden, WebhookNotFound
from llamarunner.webhooks import policy, signing
from llamarunner.webhooks.policy import Verdict

FILE_NAME = "webhooks.sqlite3"
MAX_ENDPOINTS = 100
MAX_PER_CLIENT = 10
MAX_PENDING = 1000  # deliveries of one webhook
KEPT = 100  # finished deliveries, and attempts, of one webhook
MAX_PAGES = 65_536  # of 4 KiB: 256 MiB on disk
VERSION = 2  # of the tables

_SCHEMA = """
CREATE TABLE IF NOT EXISTS endpoints (
  id TEXT PRIMARY KEY, url TEXT NOT NULL UNIQUE, events TEXT NOT NULL, secret TEXT NOT NULL, client TEXT NOT NULL,
  loopback INTEGER NOT NULL, created_at REAL NOT NULL, disabled TEXT, dropped INTEGER NOT NULL DEFAULT 0,
  owner TEXT NOT NULL DEFAULT '', scope TEXT NOT NULL DEFAULT '[]');
CREATE TABLE IF NOT EXISTS messages (id TEXT PRIMARY KEY, event TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
  number INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL REFERENCES messages(id),
  endpoint TEXT NOT NULL REFERENCES endpoints(id) ON DELETE CASCADE,
  state TEXT NOT NULL DEFAULT 'pending', failures INTEGER NOT NULL DEFAULT 0, waited REAL NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS deliveries_in_order ON deliveries (endpoint, state, number);
CREATE INDEX IF NOT EXISTS deliveries_of_message ON deliveries (message);
CREATE TABLE IF NOT EXISTS attempts (
  number INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL REFERENCES endpoints(id) ON DELETE CASCADE,
  message TEXT NOT NULL, event TEXT NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL, status INTEGER, error TEXT,
  answer TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS attempts_in_order ON attempts (endpoint, number);
CREATE TRIGGER IF NOT EXISTS unused_messages AFTER DELETE ON deliveries
  WHEN NOT EXISTS (SELECT 1 FROM deliveries WHERE message = OLD.message)
  BEGIN DELETE FROM messages WHERE id = OLD.message; END;
"""


_FROM_1 = """
ALTER TABLE endpoints ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE endpoints ADD COLUMN scope TEXT NOT NULL DEFAULT '[]';
"""

Scope = tuple[tuple[str, ...], ...]  # globs, of which one of each must match a model's id; () is all models


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered webhook."""

    id: str
    url: str
    events: tuple[str, ...]
    secret: str
    client: str  # for whom it is counted
    loopback: bool  # whether it may lead to this machine
    created_at: float  # time.time()
    disabled: str | None = None  # why
    dropped: int = 0  # deliveries that gave way to newer ones
    owner: str = ""  # the door and the key by which it was registered
    scope: Scope = ()  # the models of which it may be told


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for webhooks. One who may see some models only sees no webhooks but its own."""

    name: str  # the door, and the bearer of its key
    scope: Scope = ()
    client: str = ""  # for whom its webhooks are counted
    loopback: bool = False  # whether it may name this machine

    def sees(self, endpoint: Endpoint) -> bool:
        return not self.scope or endpoint.owner == self.name


HOUSE = Asker("")  # sees all


@dataclass(frozen=True, slots=True)
class Summary:
    """A webhook and the deliveries that are waiting or have failed."""

    endpoint: Endpoint
    pending: int
    failed: int


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    event: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to a webhook."""

    number: int
    endpoint: Endpoint
    message: Message
    failures: int
    waited: float  # seconds that it has been put off in all


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt went."""

    message: str
    event: str
    at: float  # time.time()
    seconds: float
    status: int | None  # of the answer, if there was one
    error: str | None  # why there was none
    answer: str  # the beginning of its body


_ENDPOINT = "id, url, events, secret, client, loopback, created_at, disabled, dropped, owner, scope"
_ATTEMPT = "message, event, at, seconds, status, error, answer"

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Endpoint, Message, Attempt)}

T = TypeVar("T")


class Damaged(Exception):
    """The file holds what this program would not write."""


class Newer(Exception):
    """The file was written by a later version of this program."""


class Outbox:
    """The open file. Raises sqlite3.Error or OSError where it cannot be opened, or is open elsewhere, and Newer.

    Every method that reads raises Damaged.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
                self._db.execute(f"PRAGMA {pragma}").fetchall()
            self._db.execute(f"PRAGMA max_page_count={MAX_PAGES}").fetchall()
            upgrade = _FROM_1 if self._version() == 1 else ""
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {upgrade} PRAGMA user_version={VERSION}; COMMIT;")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def _version(self) -> int:
        """The version of the tables, 0 if there are none yet. Raises Newer."""
        version = int(self._rows("PRAGMA user_version")[0][0])
        if version > VERSION:
            raise Newer(f"version {version}, and this program knows {VERSION}")
        return version

    # ── webhooks ───────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, wanted: Endpoint, *, keep_secret: bool) -> tuple[Endpoint, bool]:
        """Add a webhook, or change the one of the same URL, which is enabled again; tell whether it is a new one.

        Raises Forbidden if there are too many, or if the one there is not for `wanted.owner` to see.
        """
        with self._transaction():
            known = self._rows(f"SELECT {_ENDPOINT} FROM endpoints WHERE url = ?", wanted.url)
            if known:
                old = _endpoint(known[0])
                if not Asker(wanted.owner, wanted.scope).sees(old):
                    raise Forbidden("Somebody else has registered this URL.", param="url")
                secret = old.secret if keep_secret else wanted.secret
                self._db.execute(
                    "UPDATE endpoints SET events = ?, secret = ?, loopback = ?, owner = ?, scope = ?, disabled = NULL "
                    "WHERE id = ?",
                    (
                        *(json.dumps(wanted.events), secret, wanted.loopback),
                        *(wanted.owner, json.dumps(wanted.scope), old.id),
                    ),
                )
                return self._endpoint(old.id), False
            self._check_room(wanted.client)
            self._db.execute(
                "INSERT INTO endpoints (id, url, events, secret, client, loopback, created_at, owner, scope) "
                "VALUES (?,?,?,?,?,?,?,?,?)",
                (
                    *(wanted.id, wanted.url, json.dumps(wanted.events), wanted.secret),
                    *(wanted.client, wanted.loopback, wanted.created_at, wanted.owner, json.dumps(wanted.scope)),
                ),
            )
            return wanted, True

    def endpoints(self, asker: Asker = HOUSE) -> list[Summary]:
        """All webhooks that the asker sees, the oldest first."""
        with self._transaction():
            rows = self._rows(f"SELECT {_ENDPOINT} FROM endpoints ORDER BY created_at, rowid")
            return [self._summary(one) for one in map(_endpoint, rows) if asker.sees(one)]

    def endpoint(self, endpoint_id: str, asker: Asker = HOUSE) -> Summary:
        """Raises WebhookNotFound, also for one that the asker does not see; so do those that change one."""
        with self._transaction():
            return self._summary(self._endpoint(endpoint_id, asker))

    def attempts(self, endpoint_id: str) -> list[Attempt]:
        """The last attempts of a webhook, the newest first."""
        query = f"SELECT {_ATTEMPT} FROM attempts WHERE endpoint = ? ORDER BY number DESC LIMIT ?"
        return [_made(Attempt, _ATTEMPT, row) for row in self._rows(query, endpoint_id, KEPT)]

    def delete(self, endpoint_id: str, asker: Asker = HOUSE) -> None:
        """Forget a webhook and all that was on its way to it. Raises WebhookNotFound."""
        with self._transaction():
            self._endpoint(endpoint_id, asker)
            self._db.execute("DELETE FROM endpoints WHERE id = ?", (endpoint_id,))

    def enable(self, endpoint_id: str, asker: Asker = HOUSE) -> Summary:
        """Deliver to a webhook again. Raises WebhookNotFound."""
        with self._transaction():
            self._endpoint(endpoint_id, asker)
            self._db.execute("UPDATE endpoints SET disabled = NULL WHERE id = ?", (endpoint_id,))
            return self._summary(self._endpoint(endpoint_id))

    def redeliver(self, endpoint_id: str, message: str | None, asker: Asker = HOUSE) -> int:
        """Put one delivery, or all that failed, back into the line; tell how many. Raises WebhookNotFound."""
        with self._transaction():
            self._endpoint(endpoint_id, asker)
            which, value = ("message = ?", message) if message else ("state = ?", "failed")
            changed = self._db.execute(
                f"UPDATE deliveries SET state = 'pending', failures = 0, waited = 0 WHERE endpoint = ? AND {which}",
                (endpoint_id, value),
            ).rowcount
            if message and not changed:
                raise WebhookNotFound(f"This webhook has no delivery {message[:100]!r} any more.")
            return changed

    # ── deliveries ─────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, message: Message, model_id: str | None = None) -> list[str]:
        """Put a message, perhaps about a model, into the line of every webhook that wants it and may hear of it, and
        name those; the oldest makes room.
        """
        with self._transaction():
            rows = self._rows(f"SELECT {_ENDPOINT} FROM endpoints WHERE disabled IS NULL")
            ids = [
                one.id
                for one in map(_endpoint, rows)
                if policy.wants(one.events, message.event) and policy.may_hear(one.scope, model_id)
            ]
            if not ids:
                return []
            self._db.execute(
                "INSERT INTO messages (id, event, body) VALUES (?,?,?)", (message.id, message.event, message.body)
            )
            for endpoint_id in ids:
                self._make_room(endpoint_id)
                self._db.execute("INSERT INTO deliveries (message, endpoint) VALUES (?,?)", (message.id, endpoint_id))
            return ids

    def head(self, endpoint_id: str) -> Delivery | None:
        """The next delivery of a webhook; None if there is none, or it is disabled."""
        rows = self._rows(
            "SELECT d.number, d.failures, d.waited, m.id, m.event, m.body FROM deliveries d "
            "JOIN messages m ON m.id = d.message JOIN endpoints e ON e.id = d.endpoint "
            "WHERE d.endpoint = ? AND d.state = 'pending' AND e.disabled IS NULL ORDER BY d.number LIMIT 1",
            endpoint_id,
        )
        if not rows:
            return None
        number, failures, waited, *message = rows[0]
        known = self._endpoint(endpoint_id)
        return Delivery(number, known, _made(Message, "id, event, body", message), failures, waited)

    def record(self, delivery: Delivery, attempt: Attempt, verdict: Verdict, pause: float, reason: str | None) -> None:
        """Write down how an attempt went and what follows; `reason` says why the webhook is disabled, if it is."""
        state = "failed" if verdict is Verdict.GONE else verdict.value
        with self._transaction():
            self._db.execute(
                "UPDATE deliveries SET state = ?, failures = failures + 1, waited = waited + ? WHERE number = ?",
                (state, pause, delivery.number),
            )
            if reason:
                self._db.execute("UPDATE endpoints SET disabled = ? WHERE id = ?", (reason, delivery.endpoint.id))
            self._note(delivery.endpoint.id, attempt)
            if verdict is not Verdict.RETRY:
                self._forget(delivery.endpoint.id)

    def note(self, endpoint_id: str, attempt: Attempt) -> None:
        """Write down an attempt that belongs to no delivery."""
        with self._transaction():
            self._note(endpoint_id, attempt)

    # ── parts of transactions ──────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            raise

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._db.execute(query, values).fetchall()

    def _count(self, query: str, *values: Any) -> int:
        return int(self._rows(f"SELECT count(*) FROM {query}", *values)[0][0])

    def _endpoint(self, endpoint_id: str, asker: Asker = HOUSE) -> Endpoint:
        rows = self._rows(f"SELECT {_ENDPOINT} FROM endpoints WHERE id = ?", endpoint_id)
        known = _endpoint(rows[0]) if rows else None
        if known is None or not asker.sees(known):
            raise WebhookNotFound(f"There is no webhook {endpoint_id[:100]!r}.")
        return known

    def _summary(self, endpoint: Endpoint) -> Summary:
        pending, failed = (
            self._count("deliveries WHERE endpoint = ? AND state = ?", endpoint.id, state)
            for state in ("pending", "failed")
        )
        return Summary(endpoint, pending, failed)

    def _check_room(self, client: str) -> None:
        if self._count("endpoints") >= MAX_ENDPOINTS:
            raise Forbidden(f"There are {MAX_ENDPOINTS} webhooks, which is the most; delete one first.")
        if self._count("endpoints WHERE client = ?", client) >= MAX_PER_CLIENT:
            raise Forbidden(f"{MAX_PER_CLIENT} webhooks were registered from your address, the most; delete one first.")

    def _make_room(self, endpoint_id: str) -> None:
        if self._count("deliveries WHERE endpoint = ? AND state = 'pending'", endpoint_id) < MAX_PENDING:
            return
        self._db.execute(
            "DELETE FROM deliveries WHERE number = "
            "(SELECT min(number) FROM deliveries WHERE endpoint = ? AND state = 'pending')",
            (endpoint_id,),
        )
        self._db.execute("UPDATE endpoints SET dropped = dropped + 1 WHERE id = ?", (endpoint_id,))

    def _note(self, endpoint_id: str, attempt: Attempt) -> None:
        """Write down an attempt, unless the webhook was deleted meanwhile; only the last ones are kept."""
        self._db.execute(
            "INSERT INTO attempts (endpoint, message, event, at, seconds, status, error, answer) "
            "SELECT id, ?, ?, ?, ?, ?, ?, ? FROM endpoints WHERE id = ?",
            (
                *(attempt.message, attempt.event, attempt.at, attempt.seconds),
                *(attempt.status, attempt.error, attempt.answer, endpoint_id),
            ),
        )
        self._prune("attempts", "endpoint = ?", endpoint_id)

    def _forget(self, endpoint_id: str) -> None:
        self._prune("deliveries", "endpoint = ? AND state != 'pending'", endpoint_id)

    def _prune(self, table: str, which: str, endpoint_id: str) -> None:
        self._db.execute(
            f"DELETE FROM {table} WHERE {which} AND number NOT IN "
            f"(SELECT number FROM {table} WHERE {which} ORDER BY number DESC LIMIT ?)",
            (endpoint_id, endpoint_id, KEPT),
        )


def _endpoint(row: Sequence[Any]) -> Endpoint:
    known = _made(Endpoint, _ENDPOINT, row, json_in=("events", "scope"))
    try:
        signing.key_of(known.secret)
    except ValueError as error:
        raise Damaged(f"the secret of {known.id}: {error}") from None
    return known


def _made(kind: type[T], columns: str, row: Sequence[Any], json_in: Collection[str] = ()) -> T:
    """Make a dataclass of a row. Raises Damaged."""
    fields = dict(zip(columns.split(", "), row, strict=True))
    try:
        made: T = _ADAPTERS[kind].validate_python({**fields, **{name: json.loads(fields[name]) for name in json_in}})
    except (ValueError, TypeError):  # pydantic's errors are ValueErrors; they would quote secrets
        raise Damaged(f"a row of {kind.__name__} cannot be read") from None
    return made
