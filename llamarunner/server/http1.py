"""One HTTP/1.1 response, from bytes: pure, incremental, and unforgiving (RFC 9112).

What it reads comes from our own children, so it need not be lenient: anything out of order is `Malformed`. It never
keeps more than one head or one chunk line of what it was fed.
"""

from __future__ import annotations

MAX_HEAD = 64 * 1024
MAX_LINE = 4096
MAX_SIZE_DIGITS = 12
HEX_DIGITS = b"0123456789abcdefABCDEF"
HEAD_END = b"\r\n\r\n"
CRLF = b"\r\n"
FRAMING = (b"content-length", b"transfer-encoding")
UNKNOWN = -1  # the body ends with the connection


class Malformed(Exception):
    """What came is not an HTTP/1.1 response."""


class Response:
    """The state of one response: `status` is 0 until the head is there, `complete` says that the body is."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = False
        self._rest = b""
        self._left = 0  # bytes of the body, or of the present chunk, still to come
        self._chunked = False
        self._in_chunk = False
        self._in_trailer = False

    @property
    def keeps_connection(self) -> bool:
        """Whether the connection can carry another request after this response."""
        return self.complete and self._left != UNKNOWN and self.headers.get(b"connection", b"").lower() != b"close"

    def feed(self, data: bytes) -> bytes:
        """Take what arrived, and return what of it belongs to the body. Raises Malformed."""
        if self.complete:
            raise Malformed("bytes after the end")
        if self.status == 0:
            data = self._read_head(self._rest + data)
            if self.status == 0 or self.complete:
                return b""
        return self._read_chunks(data) if self._chunked else self._read_plain(data)

    def end(self) -> None:
        """The connection closed. Raises Malformed if the response is not complete."""
        if self.status and self._left == UNKNOWN and not self._chunked:
            self.complete = True
        if not self.complete:
            raise Malformed("closed before the end")

    def _read_head(self, data: bytes) -> bytes:
        """Read the head if it is all there; return what follows it."""
        end = data.find(HEAD_END)
        if end < 0:
            if len(data) > MAX_HEAD:
                raise Malformed("the head is too long")
            self._rest = data
            return b""
        self._rest = b""
        first, *lines = data[:end].split(CRLF)
        status = self._parse_status(first)
        if 100 <= status < 200:  # an interim response; the final one follows
            return self._read_head(data[end + 4 :])
        self.status = status
        for name, value in map(_header, lines):
            if self.headers.setdefault(name, value) != value and name in FRAMING:
                raise Malformed("two headers that contradict each other")
        self._choose_framing()
        return data[end + 4 :]

    def _parse_status(self, line: bytes) -> int:
        version, _, rest = line.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
            raise Malformed("not a status line")
        return int(rest[:3])

    def _choose_framing(self) -> None:
        length = self.headers.get(b"content-length")
        if self.status in (204, 304):
            self.complete = True
        elif (coding := self.headers.get(b"transfer-encoding")) is not None:
            if coding.lower() != b"chunked":
                raise Malformed("a transfer coding that was not asked for")
            self._chunked = True
        elif length is None:
            self._left = UNKNOWN
        elif not length.isdigit():
            raise Malformed("not a length")
        else:
            self._left = int(length)
            self.complete = self._left == 0

    def _read_plain(self, data: bytes) -> bytes:
        if self._left == UNKNOWN:
            return data
        if len(data) > self._left:
            raise Malformed("more bytes than announced")
        self._left -= len(data)
        self.complete = self._left == 0
        return data

    def _read_chunks(self, data: bytes) -> bytes:
        """Take the frames off a chunked body, as far as it has come."""
        data = self._rest + data if self._rest else data
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.complete:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            end = data.find(CRLF, at)
            if end < 0:
                break
            self._read_line(data[at:end])
            at = end + 2
        self._rest = data[at:]
        if len(self._rest) > MAX_LINE or (self._rest and self.complete):
            raise Malformed("bytes out of place")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_line(self, line: bytes) -> None:
        """Read the line that stands between chunks: its end, the next one's size, or the trailer."""
        if self._in_trailer:
            self.complete = not line
        elif self._in_chunk:
            if line:
                raise Malformed("a chunk is longer than announced")
            self._in_chunk = False
        else:
            size = line.partition(b";")[0].strip()
            if not 0 < len(size) <= MAX_SIZE_DIGITS or size.strip(HEX_DIGITS):
                raise Malformed("not the size of a chunk")
            self._left = int(size, 16)
            self._in_chunk, self._in_trailer = self._left > 0, self._left == 0


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or name != name.strip():
        raise Malformed("not a header")
    return name.lower(), value.strip()
