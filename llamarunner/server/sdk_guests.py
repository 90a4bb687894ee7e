"""The clients behind LM Studio's sockets, and the files that they have uploaded.

One client opens a socket for each namespace and names itself on each alike; what it uploads through one it uses through
another. It is known as long as one of its sockets is open, and its files are kept as long. Files of all clients
together have a bound: the oldest go first.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from llamarunner.dialects.lmstudio.sdk_frames import Hello
from llamarunner.dialects.lmstudio.sdk_uploads import Upload
from llamarunner.errors import InvalidRequest, Unauthorized

MOST_BYTES = 256_000_000  # of all files, in base64


@dataclass(eq=False, slots=True)
class Guest:
    """One client."""

    identifier: str
    passkey: str = field(repr=False)
    sockets: int = 0


class Guests:
    """All clients of one door."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._guests: dict[str, Guest] = {}
        self._files: OrderedDict[tuple[str, str], Upload] = OrderedDict()  # by client and by file
        self._bytes = 0

    @contextmanager
    def hosting(self, hello: Hello) -> Iterator[Guest]:
        """Know a client until the end of the block. Raises Unauthorized for another passkey than it had before."""
        name = hello.client_identifier
        guest = self._guests.setdefault(name, Guest(name, hello.client_passkey))
        if not hmac.compare_digest(guest.passkey.encode(), hello.client_passkey.encode()):
            raise Unauthorized(f'Failed to validate client: Invalid client passkey for client "{name}"')
        guest.sockets += 1
        try:
            yield guest
        finally:
            guest.sockets -= 1
            if not guest.sockets:
                del self._guests[name]
                for key in [key for key in self._files if key[0] == name]:
                    self._forget(key)

    def keep(self, guest: Guest, upload: Upload) -> str:
        """Keep a file; return its identifier. Raises InvalidRequest for one that has no room at all."""
        size = len(upload.content)
        if size > self._most_bytes:
            raise InvalidRequest("The file is too large.", param="contentBase64")
        while self._bytes + size > self._most_bytes:
            self._forget(next(iter(self._files)))
        identifier = secrets.token_hex(12)
        self._files[guest.identifier, identifier] = upload
        self._bytes += size
        return identifier

    def find(self, guest: Guest, identifier: str, param: str) -> Upload:
        """Find a file that this client has uploaded. Raises InvalidRequest."""
        found = self._files.get((guest.identifier, identifier))
        if found is None:
            raise InvalidRequest(f"There is no file '{identifier[:100]}'; upload it again.", param=param)
        return found

    def _forget(self, key: tuple[str, str]) -> None:
        self._bytes -= len(self._files.pop(key).content)
