"""Brings files from the network: resumed where they broke off, never longer than said, never from where it may not be.

Redirects are followed by hand, so that each step is judged. Origins that the owner has named (the registry, the hub)
are asked as they are; every other is asked through the outbound guard, which dials public addresses only. What proves
who we are goes to the origin that it is for, and to no other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

from llamarunner.library.blobs import BLOCK_BYTES, append, storing
from llamarunner.library.faults import PullFailed
from llamarunner.library.threads import in_thread
from llamarunner.outbound import AGENT, Denied, check_url

MOST_REDIRECTS = 10
LONGEST_URL = 8190  # bytes; links of content networks are signed, and long
CONNECT_SECONDS = 30.0
ATTEMPTS = 6  # in a row that bring nothing
LONGEST_PAUSE_SECONDS = 30.0
NOT_THERE = "file does not exist"

_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (408, 425, 429)  # and all that the server calls its own fault
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

Progress = Callable[[int], None]  # bytes that are there by now


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to bring: where it is, and what it must be."""

    url: URL
    size: int  # bytes
    digest: str  # sha256:…
    token: str | None = field(default=None, repr=False)  # for the origin of `url` only


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download waits for a server that is silent or that fails."""

    stall_seconds: float = 30.0
    pause_seconds: float = 1.0  # after the first failure; it doubles


class Interrupted(Exception):
    """The download broke off, and may go on."""


class Part:
    """A file that is not whole yet, and the ETag under which it began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._etag = path.with_name(path.name + ".etag")

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def state(self, size: int) -> tuple[int, str]:
        """How much is there, and the ETag that it is of; what is longer than it may be is dropped."""
        if self.size > size:
            self.drop()
        with suppress(OSError, ValueError):
            return self.size, self._etag.read_text(encoding="ascii")
        return self.size, ""

    def begin(self, etag: str) -> None:
        """Start anew. A weak ETag says nothing about the bytes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self._etag.write_text("" if etag.startswith("W/") else etag, encoding="ascii", errors="ignore")

    def done(self) -> None:
        """Forget what is of no use once the file is whole."""
        self._etag.unlink(missing_ok=True)

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.done()


class Downloads:
    """Asks servers for files. `trusted` tells the origins that the owner has named."""

    def __init__(
        self,
        trusted: Callable[[], Collection[URL]],
        guarded: Callable[[], aiohttp.BaseConnector],
        patience: Patience,
    ) -> None:
        self._trusted = trusted
        self._guarded = guarded
        self._patience = patience

    async def small(self, url: URL, limit: int, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Ask for a small document; return the status and the body. Raises PullFailed."""
        try:
            async with asyncio.timeout(self._patience.stall_seconds), self.opened(url, headers) as response:
                body = await _at_most(response, limit)
                return response.status, body
        except TimeoutError:
            raise PullFailed(f"no answer within {self._patience.stall_seconds:g} seconds") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PullFailed(_reason(error, url)) from None

    async def fetch(self, wanted: Wanted, path: Path, progress: Progress) -> None:
        """Bring a file, or the rest of it, to `path`; its digest is not looked at. Raises PullFailed, StoreFailed."""
        part = Part(path)
        idle = 0
        while True:
            before = await in_thread(lambda: part.size)
            try:
                await self._attempt(wanted, part, progress)
                return
            except Interrupted as broken:
                idle = 0 if await in_thread(lambda: part.size) > before else idle + 1
                if idle >= ATTEMPTS:
                    raise PullFailed(f"the download breaks off again and again: {broken}") from None
            await asyncio.sleep(min(self._patience.pause_seconds * 2**idle, LONGEST_PAUSE_SECONDS))

    async def _attempt(self, wanted: Wanted, part: Part, progress: Progress) -> None:
        """Raises Interrupted where another attempt may bring more."""
        have, etag = await in_thread(part.state, wanted.size)
        if have and have == wanted.size:
            return
        try:
            async with self.opened(wanted.url, _headers(have, etag), wanted.token) as response:
                if response.status == 416:
                    await in_thread(part.drop)
                    raise Interrupted("the server does not know the rest of the file")
                if not _goes_on(response, have, wanted.size):
                    have = 0
                    with storing():
                        await in_thread(part.begin, response.headers.get("ETag", ""))
                progress(have)
                await _pour(response, part, have, wanted.size, progress)
        except TimeoutError:
            raise Interrupted(f"nothing came for {self._patience.stall_seconds:g} seconds") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Interrupted(_reason(error, wanted.url)) from None
        if await in_thread(lambda: part.size) != wanted.size:
            raise Interrupted("the answer ended early")

    @asynccontextmanager
    async def opened(
        self, url: URL, headers: Mapping[str, str], token: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a URL, following redirects. Raises PullFailed, TimeoutError, or what aiohttp raises."""
        home = url.origin()
        for _ in range(MOST_REDIRECTS + 1):
            sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
            if token and url.origin() == home:
                sent["Authorization"] = f"Bearer {token}"
            async with AsyncExitStack() as stack:
                response = await self._ask(stack, url, sent)
                if response.status not in _REDIRECTS:
                    yield response
                    return
                url = redirected(url, response.headers.get("Location", ""))
        raise PullFailed("too many redirects")

    async def _ask(self, stack: AsyncExitStack, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        connector = None if url.origin() in self._trusted() else self._guarded()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=self._patience.stall_seconds
                ),
            )
        )
        try:
            return await stack.enter_async_context(session.get(url, headers=headers, allow_redirects=False))
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PermissionError):
                raise PullFailed(
                    "the download leads to an address that is not public; the owner can allow networks with "
                    "outbound.allow_cidrs"
                ) from None
            raise
        except ValueError as error:  # what no server may be asked, by aiohttp's lights
            raise PullFailed("the server sends us to a URL that cannot be read") from error


def redirected(url: URL, location: str) -> URL:
    """Return where a redirect leads, unchanged to the letter, for it may be signed. Raises PullFailed."""
    try:
        target = url.join(URL(location, encoded=True))
        check_url(str(target), LONGEST_URL)
    except (Denied, ValueError):
        raise PullFailed("the server sends us to a URL that may not be asked") from None
    if url.scheme == "https" and target.scheme != "https":
        raise PullFailed("the server sends us from https to http")
    return target


def _headers(have: int, etag: str) -> dict[str, str]:
    if not have:
        return {}
    return {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag else {})


def _goes_on(response: aiohttp.ClientResponse, have: int, size: int) -> bool:
    """Whether the answer goes on where we are; if not, it begins at the beginning. Raises PullFailed, Interrupted."""
    _judge(response.status)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise PullFailed("the server sends the file in an encoding that was not asked for")
    if response.status == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) not in (have, 0):
            raise PullFailed("the server sends another part than was asked for")
        _check_length(int(match[2]), size)
        start = int(match[1])
    else:
        if response.content_length is not None:
            _check_length(response.content_length, size)
        start = 0
    return bool(have) and start == have


def _judge(status: int) -> None:
    if status in (200, 206):
        return
    if status in _TRY_AGAIN or status >= 500:
        raise Interrupted(f"the server says {status}")
    raise PullFailed(refusal(status))


def refusal(status: int) -> str:
    """What a status means for the one who pulls."""
    if status in (401, 403):
        return "access denied"
    return NOT_THERE if status in (404, 410) else f"the server says {status}"


def _check_length(said: int, size: int) -> None:
    if said != size:
        raise PullFailed(f"the file has {said} bytes, and should have {size}")


async def _pour(response: aiohttp.ClientResponse, part: Part, have: int, size: int, progress: Progress) -> None:
    """Append what comes; also what has come before the connection breaks, or we are cancelled."""
    waiting = bytearray()
    try:
        async for chunk in response.content.iter_any():
            have += len(chunk)
            if have > size:
                raise PullFailed(f"the file is longer than the {size} bytes that it should have")
            waiting += chunk
            if len(waiting) >= BLOCK_BYTES:
                await _append(part, waiting)
            progress(have)
    finally:
        await _append(part, waiting)


async def _append(part: Part, waiting: bytearray) -> None:
    block = bytes(waiting)
    waiting.clear()
    with storing():
        await in_thread(append, part.path, block)


async def _at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise PullFailed("the answer is too long")
    return bytes(body)


def _reason(error: Exception, url: URL) -> str:
    """Say what went wrong with a host that was asked for `url`, in words that tell nothing of this machine."""
    host = url.host
    if isinstance(error, aiohttp.ClientConnectorError):  # which may be another host's, by a redirect
        host = error.host
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"{host}: its name is not known; is this machine online?"
        case aiohttp.ClientSSLError():
            return f"{host}: its certificate is not valid, or it does not speak TLS"
        case aiohttp.ClientConnectorError():
            return f"{host} cannot be reached; is this machine online?"
    return f"{host}: the connection broke off"
