"""The outbound guard: every connection that the server makes because somebody gave it a URL.

    outbound = Outbound(settings.outbound, own_ports)
    answer = await outbound.request(Ask(url, seconds=10, limit=10_000_000))

A name may lead anywhere, and elsewhere the next time. So what counts is the address of each dial, which the connector's
socket factory sees last, whatever the URL looked like and whatever DNS said before. Redirects are not followed,
proxies of the environment are not used, nothing is unpacked.

Only public addresses are dialled, and what the settings allow; this machine itself only for those who are on it. Never
the ports of our own doors and of our models, which would be reached with the server's rights, and never the metadata
services of clouds, which give credentials to whoever asks from inside.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from llamarunner.config import OutboundSettings
from llamarunner.errors import InvalidRequest

MAX_URL_BYTES = 2048
CHECK_SECONDS = 5.0
LOOKUPS = 128  # threads that may hang in DNS without holding up the lookups of others
FORBIDDEN = frozenset(map(chr, range(0x21))) | {"\\", "\x7f"}  # which parsers of URLs read differently
MAX_INTERIM = 10  # answers 1xx before the one that counts
NUMBER_LAST = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)\.*$", re.IGNORECASE)  # WHATWG URL 3.5, "ends in a number"
AGENT = "LlamaRunner"

Address = IPv4Address | IPv6Address

# The metadata services of AWS, Azure, Google, Alibaba and Oracle, and of containers on AWS.
_METADATA = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
            *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
        ),
    )
)
# What `is_global` of Python 3.11 takes for public (IANA special-purpose registries, RFC 6890 and its successors).
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            *("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2002::/16", "3fff::/20"),
            "::ffff:0:0:0/96",
            *("5f00::/16", "fec0::/10", "ff00::/8"),
        ),
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_PRIVATE = (  # RFC 1918, 6598, 3927, 4193 and 4291
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
    *("fc00::/7", "fe80::/10"),
)


class Denied(InvalidRequest):
    """The URL, or an address that it leads to, is none that may be dialled from here."""


class Unreachable(InvalidRequest):
    """There was no answer, or none that is HTTP, in time."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of a URL that a stranger gave."""

    url: str
    seconds: float  # for everything
    limit: int  # bytes of the answer's body that are wanted
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    loopback: bool = False  # whether whoever gave the URL is on this machine, and may name it


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the body as far as it was wanted."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool  # whether the body ended there


# ── the rules: pure but for the last ───────────────────────────────────────────────────────────────────────────────


def check_url(text: str, longest: int = MAX_URL_BYTES) -> URL:
    """Parse a URL that may be asked for at all, whatever its host; without its fragment. Raises Denied."""
    if len(text.encode(errors="replace")) > longest:
        raise Denied(f"The URL is longer than {longest} bytes.")
    if FORBIDDEN & set(text):
        raise Denied("The URL has a space, a backslash or a control character.")
    try:
        url = URL(text)
        host = url.host
    except ValueError:
        raise Denied("The URL cannot be read.") from None
    if url.scheme not in ("http", "https") or not host or not url.port:
        raise Denied("The URL must begin with http:// or https:// and name a host.")
    if url.raw_user is not None or url.raw_password is not None:
        raise Denied("The URL may not have a user name or a password.")
    if NUMBER_LAST.search(host) and not _is_ipv4(host):
        raise Denied("The URL's host must be a name, or an address of four numbers such as 192.0.2.1.")
    return url.with_fragment(None)


def _is_ipv4(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Rules:
    """Which addresses may be dialled."""

    allow: tuple[str, ...] = ()  # networks
    loopback: bool = False
    private: bool = False  # the networks that anybody may have at home

    def permits(self, address: Address) -> bool:
        """Tell whether an address may be dialled, as far as the address alone tells."""
        told = _plain(address)
        inner = _inner(told)
        if told in _METADATA or inner in _METADATA:
            return False
        return self._is_open(told) and (inner is None or self._is_open(inner))

    def _is_open(self, address: Address) -> bool:
        if self.loopback and address.is_loopback:
            return True
        allowed = (*self.allow, *_PRIVATE) if self.private else self.allow
        return is_public(address) or any(address in network for network in _networks(allowed))


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet."""
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _plain(address: Address) -> Address:
    """The address that is dialled in truth: without a zone, IPv4 as such."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def _inner(address: Address) -> IPv4Address | None:
    """The IPv4 address that a gateway on the way would dial."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour


@lru_cache(maxsize=16)
def _networks(texts: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(map(ip_network, texts))


def is_ours(address: Address) -> bool:
    """Tell whether an address is one of this machine: only those can be bound."""
    told = _plain(address)
    if told.is_loopback or told.is_unspecified:
        return True
    family = socket.AF_INET if told.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((str(told), 0))
    except OSError:
        return False
    return True


# ── the connections ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Gate:
    """Makes the sockets of one request, for those addresses that may be dialled."""

    rules: Rules
    own_ports: Callable[[], Collection[int]]
    refused: bool = False

    def permits(self, host: str, port: int) -> bool:
        address = ip_address(host)
        return self.rules.permits(address) and not (port in self.own_ports() and is_ours(address))

    def __call__(self, info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        """Make the socket of a dial, as aiohttp's `socket_factory`."""
        family, kind, protocol, _, (host, port, *_) = info
        if not self.permits(host, port):
            self.refused = True
            raise PermissionError("the address may not be dialled")
        return socket.socket(family, kind, protocol)


class _Handler(ResponseHandler):
    """Reads one answer. aiohttp passes over any number of interim ones (RFC 9110, 15.2) without a pause, and so a host
    that sends them without end would leave no time for anything else, not even for the timeout.
    """

    _interim = 0

    def feed_data(self, data: tuple[Any, Any], size: int = 0) -> None:
        self._interim += 100 <= data[0].code < 200
        if self._interim <= MAX_INTERIM:
            super().feed_data(data, size)
        elif self.transport is not None:
            self.abort()
            self.set_exception(aiohttp.ClientPayloadError("too many interim answers"))


class _Connector(aiohttp.TCPConnector):
    """Keeps nothing: neither connections nor what DNS said."""

    def __init__(self, gate: _Gate, resolver: AbstractResolver) -> None:
        super().__init__(socket_factory=gate, resolver=resolver, force_close=True, use_dns_cache=False)
        made = partial(_Handler, loop=asyncio.get_running_loop())
        self._factory = cast("partial[ResponseHandler]", made)


class SystemResolver(AbstractResolver):
    """The system's own resolver, in threads that nothing else waits for: a dead name server keeps one for long."""

    _threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        def look_up() -> list[tuple[Any, ...]]:
            return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)

        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is kept."""


@dataclass(slots=True)
class Outbound:
    """Asks what strangers name. `own_ports` tells where this server and its models listen, now."""

    settings: OutboundSettings
    own_ports: Callable[[], Collection[int]]
    resolver: AbstractResolver = field(default_factory=SystemResolver)

    async def check(self, text: str, *, loopback: bool = False) -> URL:
        """Refuse a URL that could never be asked, as far as can be known now; a name that nobody knows may pass.

        Raises Denied.
        """
        url = check_url(text)
        gate = self._gate(loopback)
        assert url.host
        assert url.port
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                found = await self.resolver.resolve(url.host, url.port, socket.AF_UNSPEC)
        except (OSError, ValueError, TimeoutError):
            return url
        if not any(gate.permits(result["host"].partition("%")[0], url.port) for result in found):
            raise _denied()
        return url

    async def request(self, ask: Ask) -> Answer:
        """Ask a URL once. An answer whose body does not come in time is one all the same, and not whole.
        Raises Denied or Unreachable.
        """
        url, gate = check_url(ask.url), self._gate(ask.loopback)
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **ask.headers}
        try:
            async with (
                asyncio.timeout(ask.seconds) as scope,
                self._session(gate) as session,
                session.request(ask.method, url, headers=sent, data=ask.body, allow_redirects=False) as response,
            ):
                return await _read(response, ask.limit, scope)
        except TimeoutError:
            raise Unreachable(f"There was no answer within {ask.seconds:g} seconds.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if gate.refused:
                raise _denied() from None
            raise Unreachable(_reason(error)) from None

    def connector(self) -> aiohttp.TCPConnector:
        """Make a connector that dials only what may be dialled, for requests of another shape than `request`'s.

        What it refuses is a `ClientConnectorError` whose `os_error` is a `PermissionError`.
        """
        return aiohttp.TCPConnector(
            socket_factory=self._gate(loopback=False), resolver=self.resolver, force_close=True, use_dns_cache=False
        )

    @asynccontextmanager
    async def line(
        self, *, loopback: bool = False, private: bool = False, connect_seconds: float | None = None
    ) -> AsyncIterator[Line]:
        """Make a line to a host that is asked several times, and whose answers are read as they come.

        Each address has `connect_seconds` to take a connection.
        """
        gate = self._gate(loopback, private)
        async with self._session(gate, connect_seconds) as session:
            yield Line(session, gate)

    def _session(self, gate: _Gate, connect_seconds: float | None = None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connector(gate, self.resolver),
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds),
        )

    def _gate(self, loopback: bool, private: bool = False) -> _Gate:
        return _Gate(Rules(self.settings.allow_cidrs, loopback, private), self.own_ports)


@dataclass(frozen=True, slots=True)
class Line:
    """Asks, as often as wanted; made by `Outbound.line`. Each dial is judged anew."""

    session: aiohttp.ClientSession
    gate: _Gate

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        """Return an answer as soon as its head is there; the caller bounds the wait, reads, and closes it.

        Raises Denied or Unreachable.
        """
        sent = {**headers, "User-Agent": AGENT, "Accept-Encoding": "identity"}
        try:
            return await self.session.request(
                method, check_url(url), headers=sent, data=body or None, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if self.gate.refused:
                raise _denied() from None
            raise Unreachable(_reason(error)) from None


async def _read(response: aiohttp.ClientResponse, limit: int, scope: asyncio.Timeout) -> Answer:
    """Read as much of the body as is wanted, and cut what is left."""
    body, whole = bytearray(), False
    try:
        deadline = scope.when()
        async with asyncio.timeout_at(None if deadline is None else deadline - 0.05):
            while len(body) <= limit and not whole:
                chunk = await response.content.read(limit + 1 - len(body))
                body += chunk
                whole = not chunk
    except (TimeoutError, aiohttp.ClientError, OSError):
        whole = False
    response.close()
    return Answer(response.status, response.headers.copy(), bytes(body[:limit]), whole)


def _denied() -> Denied:
    return Denied(
        "The URL leads to an address that is not public; the owner can allow networks with outbound.allow_cidrs, but "
        "never the server's own ports and the metadata services of clouds."
    )


def _reason(error: Exception) -> str:
    """Say what went wrong in words that tell nothing of this machine."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "The name of the host is not known."
        case aiohttp.ConnectionTimeoutError():
            return "The host does not take connections in time."
        case aiohttp.ClientSSLError():
            return "The certificate of the host is not valid, or it does not speak TLS."
        case aiohttp.ClientConnectorError():
            return "The host cannot be reached, or nothing listens there."
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "The connection was closed before the answer."
        case aiohttp.InvalidURL():
            return "The URL cannot be read."
    return "The answer is not valid HTTP."
