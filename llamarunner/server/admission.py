"""Who may come in: the questions of the guards that need no HTTP server to be asked.

The Host and Origin headers are checked on every bind. A page on any web site can point a name of its own at 127.0.0.1
and then talk to this server as if it were its own (DNS rebinding); it cannot choose the Host header that its browser
sends. So Host must be a name that no stranger can own.

Ollama's desktop clients are pages too, of schemes that no web site can have, or served by a program on the user's own
machine; Ollama lets them in without being told to, so its door here does. What they send must still say that it is
JSON (`body.check_type`), which a page cannot without asking first, and pages of web sites stay out. Containers call
the machine by names in a domain that is nobody's.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from functools import lru_cache

from llamarunner.config import ApiKey, Door
from llamarunner.errors import Forbidden, InvalidRequest, Unauthorized, WrongKey

Headers = Mapping[str, str]

_DESKTOP = re.compile(
    r"(?:app|file|tauri|vscode-webview|vscode-file)://[^\s]*"
    r"|https?://(?:localhost|tauri\.localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::\d{1,5})?"
)
_OF_CONTAINERS = frozenset({"host.docker.internal", "host.containers.internal"})


class Admission:
    """The rules of one door; `desktop` lets in what Ollama lets in without being told."""

    def __init__(self, door: Door, desktop: bool = False) -> None:
        own = socket.gethostname().casefold()
        configured = {name.casefold() for name in door.allowed_hosts}
        self._hosts = frozenset({"localhost", own, own.split(".")[0]} | configured)
        self._hosts |= _OF_CONTAINERS if desktop else frozenset()
        self._desktop = desktop
        self._origins = frozenset(door.cors_origins)
        self._keys = tuple((key.key.get_secret_value().encode(), key) for key in door.known_keys())
        self.is_own_host = lru_cache(maxsize=256)(self._is_own_host)

    def check_host(self, host: str) -> None:
        """Refuse names that could be anybody's. Raises Forbidden."""
        if not self.is_own_host(host):
            raise Forbidden("This Host header is not allowed; the owner can add it to the door's allowed_hosts.")

    def check_origin(self, origin: str, host: str) -> None:
        """Refuse pages of other sites. Raises Forbidden."""
        if not (self.allows_origin(origin) or origin.partition("://")[2].casefold() == host.casefold()):
            raise Forbidden("This Origin is not allowed; the owner can add it to the door's cors_origins.")

    def allows_origin(self, origin: str) -> bool:
        """Tell whether pages of an origin may read our answers."""
        if origin in self._origins or "*" in self._origins:
            return True
        return self._desktop and _DESKTOP.fullmatch(origin) is not None

    def check_key(self, headers: Headers) -> ApiKey | None:
        """Ask for one of the door's keys, and tell which it is; None if the door has none.

        Raises Unauthorized, as WrongKey if there is a key, or InvalidRequest.
        """
        if not self._keys:
            return None
        given = _credential(headers)
        if given is None:
            raise Unauthorized("An API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.")
        secret = given.encode(errors="surrogateescape")
        found = [key for own, key in self._keys if hmac.compare_digest(secret, own)]  # all of them, in constant time
        if not found:
            raise WrongKey("The API key is not valid.", given=given)
        return found[0]

    def _is_own_host(self, host: str) -> bool:
        name = _host_name(host)
        return name is not None and (name in self._hosts or name.endswith(".localhost") or _is_address(name))


def _credential(headers: Headers) -> str | None:
    """Find the one key of a request, wherever it is; two different ones are ambiguous."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.casefold() == "bearer" else None
    key = headers.get("x-api-key")
    if bearer and key and bearer != key:
        raise InvalidRequest("Authorization and x-api-key hold different keys; send one of them.")
    return bearer or key


def _host_name(host: str) -> str | None:
    """Take the name from `name`, `name:port` or `[v6]:port`; None if it is none of these."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        well_formed = bool(bracket) and ":" in name
    else:
        name, colon, port = host.partition(":")
        rest = colon + port
        well_formed = bool(name)
    if rest and not (rest[0] == ":" and rest[1:].isdecimal() and rest.isascii()):
        return None
    return name.casefold().removesuffix(".") if well_formed else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
