"""Chats that are kept: a client says what is new and names the response that it goes on from.

* `archive` the SQLite file: what each response added, and from which one it goes on; pure of everything asynchronous.
* `room`    the archive on a thread of its own, for the server.

A stored response is a point in a tree: the same one may be gone on from twice. It holds what was new in it alone, so a
long chat costs as much as it is long, and the way to the root is read when somebody goes on. What belongs to one owner
(an API key; all who need none) is not there for another. Trees that were not used for long are deleted, and those used
least recently when the file is full; a tree goes as a whole, since a part of it is of no use.
"""

from llamarunner.chats.archive import Entry, NotKept
from llamarunner.chats.room import Chats, new_id

__all__ = ["Chats", "Entry", "NotKept", "new_id"]
