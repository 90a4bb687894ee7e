"""The SQLite file of chats. Everything here blocks, and belongs to one thread; every method is one transaction.

Several servers may share the file. What is deleted is overwritten.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "chats.sqlite3"
VERSION = 1  # of the tables
BUSY_SECONDS = 5.0  # for another server to finish its transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trees (id INTEGER PRIMARY KEY, used_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS trees_by_use ON trees (used_at);
CREATE TABLE IF NOT EXISTS responses (
  id TEXT PRIMARY KEY, tree INTEGER NOT NULL REFERENCES trees(id) ON DELETE CASCADE, previous TEXT,
  owner TEXT NOT NULL, kind TEXT NOT NULL, turn TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS responses_of_tree ON responses (tree);
"""
_WAY = """
WITH RECURSIVE way (id, previous, turn, depth) AS (
  SELECT id, previous, turn, 0 FROM responses WHERE id = ? AND owner = ? AND kind = ?
  UNION ALL
  SELECT r.id, r.previous, r.turn, way.depth + 1 FROM responses r JOIN way ON r.id = way.previous
)
SELECT previous, turn FROM way ORDER BY depth DESC
"""


class NotKept(Exception):
    """There is no such response: never, no more, or not for this owner; or a part of what it goes on from is gone."""


class Newer(Exception):
    """The file was written by a later version of this program."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One response of a chat. `turn` is what it added, `body` what was answered; both are JSON objects."""

    id: str
    owner: str
    kind: str  # of the API, which alone can read its turns
    previous: str | None
    turn: dict[str, Any]
    body: dict[str, Any]


class Archive:
    """The open file. Raises sqlite3.Error or OSError where it cannot be opened, and Newer; all methods the first."""

    def __init__(self, file: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        self._stat = os.stat(file)
        self._db = sqlite3.connect(file, timeout=busy_seconds, isolation_level=None)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
                self._db.execute(f"PRAGMA {pragma}").fetchall()
            if self._number("PRAGMA user_version") > VERSION:
                raise Newer
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
            self._page = self._number("PRAGMA page_size")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def is_at(self, file: Path) -> bool:
        """Tell whether the file is still the one of that name: its owner may delete it, or put back another."""
        try:
            return os.path.samestat(self._stat, os.stat(file))
        except OSError:
            return False

    def wait_at_most(self, busy_seconds: float) -> None:
        """Say how long a transaction may wait for another server's."""
        self._db.execute(f"PRAGMA busy_timeout={round(busy_seconds * 1000)}").fetchall()

    def add(self, entry: Entry, now: float, most_bytes: int) -> bool:
        """Keep a response; whole trees make room, those used least recently first. `now` is `time.time()`.

        False if its own tree is too large to be kept any longer, and is deleted too. Raises NotKept if what it goes on
        from is gone meanwhile.
        """
        with self._transaction():
            tree = self._tree_of(entry, now)
            self._db.execute(
                "INSERT INTO responses (id, tree, previous, owner, kind, turn, body) VALUES (?,?,?,?,?,?,?)",
                (entry.id, tree, entry.previous, entry.owner, entry.kind, _text(entry.turn), _text(entry.body)),
            )
            if self._bytes_used() > most_bytes and self._bytes_of(tree) > most_bytes:
                self._db.execute("DELETE FROM trees WHERE id = ?", (tree,))
                return False  # before the others have made room in vain
            while self._bytes_used() > most_bytes:
                oldest = self._number("SELECT id FROM trees ORDER BY id = ?, used_at LIMIT 1", tree)
                self._db.execute("DELETE FROM trees WHERE id = ?", (oldest,))
                if oldest == tree:
                    return False
            return True

    def turns(self, response_id: str, owner: str, kind: str, now: float) -> list[dict[str, Any]]:
        """What was said up to a response, from the beginning. Raises NotKept."""
        with self._transaction():
            rows = self._db.execute(_WAY, (response_id, owner, kind)).fetchall()
            if not rows or rows[0][0] is not None:
                raise NotKept
            self._db.execute(
                "UPDATE trees SET used_at = ? WHERE id = (SELECT tree FROM responses WHERE id = ?)", (now, response_id)
            )
        return [_object(turn) for _, turn in rows]

    def entry(self, response_id: str, owner: str, kind: str) -> Entry:
        """One response. Raises NotKept."""
        rows = self._db.execute(
            "SELECT previous, turn, body FROM responses WHERE id = ? AND owner = ? AND kind = ?",
            (response_id, owner, kind),
        ).fetchall()
        if not rows:
            raise NotKept
        previous, turn, body = rows[0]
        return Entry(response_id, owner, kind, previous, _object(turn), _object(body))

    def delete(self, response_id: str, owner: str) -> None:
        """Forget a response of any kind, with which nobody can go on from those after it either. Raises NotKept."""
        with self._transaction():
            gone = self._db.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (response_id, owner)).rowcount
            if not gone:
                raise NotKept

    def forget(self, before: float) -> int:
        """Delete the trees that were last used before then, in `time.time()`; tell how many."""
        with self._transaction():
            return self._db.execute("DELETE FROM trees WHERE used_at < ?", (before,)).rowcount

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

    def _tree_of(self, entry: Entry, now: float) -> int:
        """The tree that a new response belongs to, which is used by that."""
        if entry.previous is None:
            return int(self._db.execute("INSERT INTO trees (used_at) VALUES (?)", (now,)).lastrowid or 0)
        rows = self._db.execute(
            "SELECT tree FROM responses WHERE id = ? AND owner = ? AND kind = ?",
            (entry.previous, entry.owner, entry.kind),
        ).fetchall()
        if not rows:
            raise NotKept
        self._db.execute("UPDATE trees SET used_at = ? WHERE id = ?", (now, rows[0][0]))
        return int(rows[0][0])

    def _bytes_used(self) -> int:
        return self._page * (self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count"))

    def _bytes_of(self, tree: int) -> int:
        size = "SUM(LENGTH(CAST(turn AS BLOB)) + LENGTH(CAST(body AS BLOB)))"
        return self._number(f"SELECT {size} FROM responses WHERE tree = ?", tree)

    def _number(self, query: str, *values: object) -> int:
        return int(self._db.execute(query, values).fetchone()[0])


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:  # no page of the file is damaged, but what is on it
        raise NotKept from None
    return value if isinstance(value, dict) else {}
