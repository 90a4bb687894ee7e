"""The parser of responses: every way to cut one, every way to spoil one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.server.http1 import MAX_HEAD, MAX_LINE, Malformed, Response

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;name=value\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN
BODIES = {PLAIN: b"hello", CHUNKED: b"hello 0123456789", UNTIL_CLOSE: b"hello", INTERIM: b"hello"}


def read(pieces: list[bytes]) -> tuple[Response, bytes]:
    """Feed a response in pieces, then close the connection."""
    response = Response()
    body = b"".join([response.feed(piece) for piece in pieces])
    response.end()
    return response, body


@given(st.sampled_from(list(BODIES)), st.data())
def test_response_is_the_same_however_it_is_cut(message: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(message) - 1), max_size=12)))
    pieces = [message[start:end] for start, end in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    response, body = read(pieces)
    assert (response.status, body) == (200, BODIES[message])


@pytest.mark.parametrize("message", [PLAIN, CHUNKED])
def test_every_truncation_is_noticed(message: bytes) -> None:
    for length in range(len(message)):
        with pytest.raises(Malformed):
            read([message[:length]] if length else [])


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (PLAIN, True),
        (CHUNKED, True),
        (UNTIL_CLOSE, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
    ],
)
def test_connection_is_kept_only_where_the_end_is_told(message: bytes, kept: bool) -> None:
    response, _ = read([message])
    assert response.keeps_connection is kept


@pytest.mark.parametrize(
    "message",
    [
        b"\x00\xff garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * (MAX_LINE + 1),
        b"x" * (MAX_HEAD + 1),
    ],
)
def test_malformed_responses_are_refused(message: bytes) -> None:
    with pytest.raises(Malformed):
        read([message])


@given(st.binary(max_size=200), st.sampled_from([b"", PLAIN[:40], CHUNKED[:60]]))
def test_any_bytes_are_read_or_refused(noise: bytes, start: bytes) -> None:
    try:
        response, _ = read([start + noise])
    except Malformed:
        return
    assert response.complete
    assert 100 <= response.status <= 999
