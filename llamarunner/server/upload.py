"""Forms with a file: read in pieces, the file straight to disk, with a size and a deadline.

Fields come in any order; clients put the file first or last. aiohttp parses; what it calls malformed, in whatever way,
is an `InvalidRequest` here. The names of files are never used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web

from llamarunner.errors import InvalidRequest, PayloadTooLarge, RequestTimeout, ServerError, UnsupportedMedia
from llamarunner.server import body
from llamarunner.server.spool import Spool

log = logging.getLogger("llamarunner.server")

MB = 1_000_000
PIECE = 2**16
MAX_FIELD = 65_536  # bytes of a field that is no file
MAX_FIELDS = 64
FORM_BYTES = 2 * MB  # of all that is not the file
MAX_LINES = 2000  # before the form, and of all its boundaries and headers


@dataclass(slots=True)
class Form:
    """The fields in the order they came, each as often as it was sent, and the one file."""

    path: Path
    fields: list[tuple[str, str]] = field(default_factory=list)
    size: int = -1  # bytes of the file; -1 if there is none


@dataclass(frozen=True, slots=True)
class Terms:
    """What an upload must keep to.

    `check` is called when the file begins, with the fields that came before it, and may raise.
    """

    idle_seconds: float  # longest pause
    limit_mb: int | None  # of the file
    check: Callable[[Form], None]


@asynccontextmanager
async def received(request: web.Request, spool: Spool, terms: Terms) -> AsyncIterator[Form]:
    """Receive a form with a `file`, which is removed at the end of the block.

    Raises InvalidRequest, PayloadTooLarge, UnsupportedMedia or RequestTimeout, as early as can be.
    """
    if request.content_type != "multipart/form-data":
        raise UnsupportedMedia("Send the file in a form: the Content-Type must be multipart/form-data.")
    body.check_encoding(request)
    if terms.limit_mb is not None and (request.content_length or 0) > terms.limit_mb * MB + FORM_BYTES:
        raise _too_large(terms.limit_mb)
    with ExitStack() as stack:
        with _disk_errors():
            file, path = stack.enter_context(spool.file())
            form = Form(path)
            await _Reading(request, terms, file, form).run()
            if path.stat().st_size != max(form.size, 0):
                raise OSError("it is not as long as what was sent")
        yield form


class _Reading:
    """One upload as it arrives."""

    def __init__(self, request: web.Request, terms: Terms, file: IO[bytes], form: Form) -> None:
        self._request = request
        self._terms = terms
        self._file = file
        self._form = form
        self._arrived = 0

    async def run(self) -> None:
        body.give_permission(self._request)
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        try:
            async with asyncio.timeout(self._terms.idle_seconds) as self._deadline:
                await self._parts()
        except TimeoutError:
            raise RequestTimeout("The request body did not arrive in time.") from None
        if "Transfer-Encoding" in self._request.headers:
            body.check_framing(self._request, self._arrived)

    async def _parts(self) -> None:
        with _malformed():
            reader = MultipartReader(self._request.headers, cast(StreamReader, _Lines(self._request.content)))
        while True:
            with _malformed():
                part = await reader.next()
            if part is None:
                return
            if isinstance(part, MultipartReader) or not part.name:
                raise InvalidRequest("Each part of the form must have a name and be no form itself.")
            if part.name == "file":
                await self._save(part)
            else:
                await self._keep(part, part.name)

    async def _save(self, part: BodyPartReader) -> None:
        form, limit = self._form, self._terms.limit_mb
        if form.size >= 0:
            raise InvalidRequest("There must be one file only.", param="file")
        self._terms.check(form)
        form.size = 0
        while piece := await self._piece(part):
            form.size += len(piece)
            if limit is not None and form.size > limit * MB:
                raise _too_large(limit)
            await self._write(piece)

    async def _write(self, piece: bytes) -> None:
        """Write in a thread, for a disk may be slow; the file stays open until it has."""
        writing = asyncio.get_running_loop().run_in_executor(None, write_all, self._file, piece)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    async def _keep(self, part: BodyPartReader, name: str) -> None:
        if len(self._form.fields) >= MAX_FIELDS:
            raise InvalidRequest(f"The form has more than {MAX_FIELDS} fields.")
        value = b""
        while piece := await self._piece(part):
            value += piece
            if len(value) > MAX_FIELD:
                raise InvalidRequest(f"'{name[:100]}' is longer than {MAX_FIELD} bytes.", param=name[:100])
        try:
            self._form.fields.append((name, value.decode()))
        except UnicodeDecodeError:
            raise InvalidRequest(f"'{name[:100]}' is not valid UTF-8.", param=name[:100]) from None

    async def _piece(self, part: BodyPartReader) -> bytes:
        with _malformed():
            piece = await part.read_chunk(PIECE)
        self._arrived += len(piece)
        now = asyncio.get_running_loop().time()
        idle = self._terms.idle_seconds
        slowest = self._began + max(idle / 3, self._arrived / body.BYTES_PER_SECOND)
        self._deadline.reschedule(min(now + idle, slowest))
        return piece


class _Lines:
    """A body that has so many lines and no more.

    aiohttp skips what comes before a form line by line, without a pause for others as long as there is some.
    """

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._left = MAX_LINES

    async def readline(self, **limits: int) -> bytes:
        if not self._left:
            raise ValueError("there are too many lines")
        self._left -= 1
        return await self._content.readline(**limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


def write_all(file: IO[bytes], piece: bytes) -> None:
    """Write a piece to a file without a buffer, which on a full disk takes a part of it. Raises OSError."""
    rest = memoryview(piece)
    while rest:
        if not (taken := file.write(rest)):
            raise OSError("the file takes no more")
        rest = rest[taken:]


@contextmanager
def _malformed() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # aiohttp has many names for a broken form, and some are private
        raise InvalidRequest("The form broke off, or is not framed as multipart/form-data demands.") from error


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        log.error("an upload cannot be kept: %s", error)
        raise ServerError("The upload cannot be kept: the server's disk has no room, or fails.") from error


def _too_large(limit_mb: int) -> PayloadTooLarge:
    limit = f"the limit of {limit_mb} MB; rate_limits.file_upload_size_mb of the door or of the key sets it"
    return PayloadTooLarge(f"The file is larger than {limit}.", param="file")
